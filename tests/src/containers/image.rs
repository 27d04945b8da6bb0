//! Images made in the guest from what it has: busybox and the lab's own program, in the form of `docker save`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

use crate::process::run;

/// The image of every pod's own process, which only keeps its namespaces.
pub(super) const PAUSE: &str = "registry.k8s.io/pause:3.6";
/// A web server and a shell: stands in for nginx.
pub const NGINX: &str = "docker.io/library/nginx:1.23";
/// The lab's program under the name of node-local-dns's: stands in for an agent on the node's network.
pub const NODE_CACHE: &str = "registry.k8s.io/dns/k8s-dns-node-cache:1.22.13";

/// Every image that is made.
pub(super) const IMAGES: &[&str] = &[PAUSE, NGINX, NODE_CACHE];

const APPLETS: &[&str] = &["sh", "cat", "httpd", "ls", "nc", "sleep", "wget"];
const WORK: &str = "/run/lab-images";

/// Makes one archive with all images and imports it into the namespace that kubelets use.
pub(super) fn import() -> Result<()> {
    let work = Path::new(WORK);
    fs::create_dir_all(work.join("files/bin"))?;
    fs::create_dir_all(work.join("files/www"))?;
    fs::create_dir_all(work.join("files/tmp"))?;
    fs::copy("/bin/busybox", work.join("files/bin/busybox")).context("no busybox for the image")?;
    for applet in APPLETS {
        symlink("busybox", work.join("files/bin").join(applet))?;
    }
    fs::copy("/proc/self/exe", work.join("files/bin/node-cache"))?;
    fs::write(work.join("files/www/index.html"), "Welcome to nginx!\n")?;
    run(&format!("tar -C {WORK}/files -cf {WORK}/layer.tar bin tmp www"))?;
    let sum = run(&format!("sha256sum {WORK}/layer.tar"))?;
    let sum = sum.split_whitespace().next().context("no checksum")?;
    let mut manifest = Vec::new();
    let mut names = vec!["manifest.json".to_owned(), "layer.tar".to_owned()];
    for (index, tag) in IMAGES.iter().enumerate() {
        // A configuration of its own gives each image an id of its own, by which the runtime finds its name.
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sleep", "1000000"]},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{sum}")]},
            "history": [{"created_by": format!("the lab, for {tag}")}],
        });
        let name = format!("config-{index}.json");
        fs::write(work.join(&name), config.to_string())?;
        manifest.push(json!({"Config": name, "RepoTags": [tag], "Layers": ["layer.tar"]}));
        names.push(name);
    }
    fs::write(work.join("manifest.json"), serde_json::to_vec(&manifest)?)?;
    run(&format!("tar -C {WORK} -cf {WORK}/images.tar {}", names.join(" ")))?;
    run(&format!("ctr -n k8s.io images import {WORK}/images.tar"))?;
    fs::remove_dir_all(work)?;
    Ok(())
}
