use std::io::Read;

use flate2::read::GzDecoder;

use super::*;

fn image() -> Image<'static> {
    Image {
        name: "localhost/portclash:0.1",
        tag: "0.1",
        created: 1_700_000_000,
        labels: BTreeMap::from([("org.opencontainers.image.title", "portclash".to_owned())]),
        entrypoint: "/usr/bin/portclash".to_owned(),
        files: vec![
            File { path: "usr/bin/portclash".to_owned(), mode: 0o755, content: b"program".repeat(1000) },
            File { path: "etc/passwd".to_owned(), mode: 0o644, content: b"root".to_vec() },
        ],
    }
}

/// Path, mode, owner, time and content of every entry, in their order.
fn entries(bytes: &[u8]) -> Vec<(String, u32, u64, u64, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in tar::Archive::new(bytes).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let header = entry.header();
        let (mode, owner) = (header.mode().unwrap(), header.uid().unwrap() + header.gid().unwrap());
        found.push((
            entry.path().unwrap().display().to_string(),
            mode,
            owner,
            header.mtime().unwrap(),
            content,
        ));
    }
    found
}

fn read(bytes: &[u8], path: &str) -> Vec<u8> {
    let entry = entries(bytes).into_iter().find(|(name, ..)| name == path);
    entry.unwrap_or_else(|| panic!("no {path}")).4
}

fn parsed(bytes: &[u8], path: &str) -> Value {
    serde_json::from_slice(&read(bytes, path)).unwrap()
}

/// The blob that a descriptor names, after size and digest were compared.
fn blob(bytes: &[u8], descriptor: &Value, media_type: &str) -> Vec<u8> {
    assert_eq!(descriptor["mediaType"], media_type);
    let digest = descriptor["digest"].as_str().unwrap();
    let content = read(bytes, &format!("blobs/{}", digest.replace(':', "/")));
    assert_eq!(descriptor["size"], content.len());
    assert_eq!(digest, sha256(&content));
    content
}

#[test]
fn the_same_input_yields_the_same_bytes_and_another_time_others() {
    let first = image().archive().unwrap();
    let mut reordered = image();
    reordered.files.push(File { path: "a".to_owned(), mode: 0o644, content: Vec::new() });
    let mut other_order = image();
    other_order.files.insert(1, File { path: "a".to_owned(), mode: 0o644, content: Vec::new() });
    assert_eq!(first.bytes, image().archive().unwrap().bytes);
    assert_eq!(reordered.archive().unwrap().written, other_order.archive().unwrap().written);
    let later = Image { created: 1_700_000_001, ..image() }.archive().unwrap();
    assert_ne!(first.written.digest, later.written.digest);
}

/// image-layout.md, image-index.md, manifest.md, config.md.
#[test]
fn the_layout_is_as_specified() {
    let archive = image().archive().unwrap();
    let bytes = archive.bytes.as_slice();
    assert_eq!(parsed(bytes, "oci-layout"), json!({"imageLayoutVersion": "1.0.0"}));
    let index = parsed(bytes, "index.json");
    assert_eq!((&index["schemaVersion"], &index["mediaType"]), (&json!(2), &json!(INDEX)));
    assert_eq!(index["manifests"].as_array().unwrap().len(), 1);
    let described = &index["manifests"][0];
    assert_eq!(described["platform"], json!({"architecture": "amd64", "os": "linux"}));
    assert_eq!(described["annotations"]["org.opencontainers.image.ref.name"], "0.1");
    assert_eq!(described["annotations"]["io.containerd.image.name"], "localhost/portclash:0.1");
    assert_eq!(described["digest"], archive.written.digest);

    let manifest: Value = serde_json::from_slice(&blob(bytes, described, MANIFEST)).unwrap();
    assert_eq!((&manifest["schemaVersion"], &manifest["mediaType"]), (&json!(2), &json!(MANIFEST)));
    assert_eq!(manifest["config"]["digest"], archive.written.id);
    let config: Value = serde_json::from_slice(&blob(bytes, &manifest["config"], CONFIG)).unwrap();
    let compressed = blob(bytes, &manifest["layers"][0], LAYER);
    let mut layer = Vec::new();
    GzDecoder::new(compressed.as_slice()).read_to_end(&mut layer).unwrap();
    assert_eq!(config["rootfs"], json!({"type": "layers", "diff_ids": [sha256(&layer)]}));
    assert_eq!(config["created"], "2023-11-14T22:13:20Z");
    assert_eq!(config["config"]["Entrypoint"], json!(["/usr/bin/portclash"]));
    assert_eq!(config["config"]["User"], "0:0");
    assert_eq!(config["config"]["Labels"], manifest["annotations"]);
}

#[test]
fn the_layer_is_sorted_and_belongs_to_root() {
    let layer = tar(&image().files, 7).unwrap();
    let found: Vec<_> = entries(&layer)
        .into_iter()
        .map(|(path, mode, owner, time, content)| {
            assert_eq!((owner, time), (0, 7), "{path}");
            (path, mode, content.len())
        })
        .collect();
    let expected = [
        ("etc/", 0o755, 0),
        ("etc/passwd", 0o644, 4),
        ("usr/", 0o755, 0),
        ("usr/bin/", 0o755, 0),
        ("usr/bin/portclash", 0o755, 7000),
    ];
    assert_eq!(found, expected.map(|(path, mode, size)| (path.to_owned(), mode, size)));
}

/// What `docker load` read before it knew OCI layouts.
#[test]
fn dockers_own_manifest_names_the_same_blobs() {
    let archive = image().archive().unwrap();
    let docker = parsed(&archive.bytes, "manifest.json");
    assert_eq!(docker[0]["RepoTags"], json!(["localhost/portclash:0.1"]));
    for path in [&docker[0]["Config"], &docker[0]["Layers"][0]] {
        let path = path.as_str().unwrap();
        let content = read(&archive.bytes, path);
        assert_eq!(path, format!("blobs/sha256/{}", hex(&content)));
    }
}
