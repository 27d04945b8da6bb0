//! An OCI image layout in one tar archive (image-spec 1.1: image-layout.md, manifest.md, config.md). Pure: the same input
//! yields the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write;

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// gzip and not zstd: every runtime that is still in use reads it.
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const ARCHITECTURE: &str = "amd64";
/// The header of gzip names the system that compressed; none is told.
const UNKNOWN_SYSTEM: u8 = 255;
const DIRECTORY_MODE: u32 = 0o755;

/// One file of the image.
pub(super) struct File {
    /// Path without a leading slash.
    pub(super) path: String,
    pub(super) mode: u32,
    pub(super) content: Vec<u8>,
}

/// An image to be written.
pub(super) struct Image<'a> {
    /// Full name with tag.
    pub(super) name: &'a str,
    pub(super) tag: &'a str,
    /// Seconds since 1970, for everything that bears a time.
    pub(super) created: u64,
    pub(super) labels: BTreeMap<&'static str, String>,
    pub(super) entrypoint: String,
    /// The first is the program.
    pub(super) files: Vec<File>,
}

/// An image as an archive.
pub(super) struct Archive {
    pub(super) bytes: Vec<u8>,
    pub(super) written: Written,
}

/// What to say about it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Written {
    /// Digest of the manifest: what registries call the image's digest.
    pub(super) digest: String,
    /// Digest of the configuration: what runtimes call the image's id.
    pub(super) id: String,
    pub(super) size: usize,
    pub(super) archive_sha256: String,
    pub(super) program_size: usize,
    pub(super) program_sha256: String,
}

/// Content that is named by its digest.
struct Blob {
    media_type: &'static str,
    digest: String,
    content: Vec<u8>,
}

impl Blob {
    fn new(media_type: &'static str, content: Vec<u8>) -> Self {
        Self { media_type, digest: sha256(&content), content }
    }

    fn json(media_type: &'static str, value: &Value) -> Self {
        Self::new(media_type, value.to_string().into_bytes())
    }

    /// descriptor.md.
    fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest, "size": self.content.len()})
    }

    fn path(&self) -> String {
        format!("blobs/{}", self.digest.replace(':', "/"))
    }
}

impl Image<'_> {
    /// Makes the archive.
    pub(super) fn archive(&self) -> Result<Archive> {
        let layer = tar(&self.files, self.created)?;
        let config = Blob::json(CONFIG, &self.config(&sha256(&layer))?);
        let layer = Blob::new(LAYER, gzip(&layer)?);
        let manifest = Blob::json(
            MANIFEST,
            &json!({
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": config.descriptor(),
                "layers": [layer.descriptor()],
                "annotations": self.labels,
            }),
        );
        let mut entries = vec![
            entry("oci-layout", json!({"imageLayoutVersion": "1.0.0"}).to_string()),
            entry("index.json", self.index(&manifest).to_string()),
            // `docker load` of releases before 25 knows only this.
            entry("manifest.json", self.docker_manifest(&config, &layer).to_string()),
        ];
        let (digest, id) = (manifest.digest.clone(), config.digest.clone());
        for blob in [manifest, config, layer] {
            entries.push(File { path: blob.path(), mode: 0o644, content: blob.content });
        }
        let bytes = tar(&entries, self.created)?;
        let program = self.files.first().map(|file| file.content.as_slice()).unwrap_or_default();
        let written = Written {
            digest,
            id,
            size: bytes.len(),
            archive_sha256: hex(&bytes),
            program_size: program.len(),
            program_sha256: hex(program),
        };
        Ok(Archive { bytes, written })
    }

    fn config(&self, layer: &str) -> Result<Value> {
        let created =
            i64::try_from(self.created).ok().and_then(|time| jiff::Timestamp::from_second(time).ok());
        let created = created.context("the time of the source is no time")?.to_string();
        Ok(json!({
            "created": created,
            "architecture": ARCHITECTURE,
            "os": "linux",
            "config": {
                "User": "0:0",
                "Env": ["PATH=/usr/bin"],
                "Entrypoint": [self.entrypoint],
                "Cmd": ["serve"],
                "WorkingDir": "/",
                "Labels": self.labels,
                "StopSignal": "SIGTERM",
            },
            "rootfs": {"type": "layers", "diff_ids": [layer]},
            "history": [{"created": created, "created_by": "cargo xtask image"}],
        }))
    }

    fn index(&self, manifest: &Blob) -> Value {
        let mut descriptor = manifest.descriptor();
        if let Some(fields) = descriptor.as_object_mut() {
            fields.insert("platform".to_owned(), json!({"architecture": ARCHITECTURE, "os": "linux"}));
            let annotations = json!({
                // containerd and podman take the whole name from here.
                "io.containerd.image.name": self.name,
                "org.opencontainers.image.ref.name": self.tag,
            });
            fields.insert("annotations".to_owned(), annotations);
        }
        json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor]})
    }

    fn docker_manifest(&self, config: &Blob, layer: &Blob) -> Value {
        json!([{"Config": config.path(), "RepoTags": [self.name], "Layers": [layer.path()]}])
    }
}

fn entry(path: &str, text: String) -> File {
    File { path: path.to_owned(), mode: 0o644, content: text.into_bytes() }
}

/// An archive sorted by path, parents first, everything root's.
fn tar(files: &[File], time: u64) -> Result<Vec<u8>> {
    let mut folders = BTreeSet::new();
    for file in files {
        let parents = file.path.match_indices('/').filter_map(|(at, _)| file.path.get(..at));
        folders.extend(parents.map(str::to_owned));
    }
    let mut entries: BTreeMap<&str, Option<&File>> =
        folders.iter().map(|folder| (folder.as_str(), None)).collect();
    entries.extend(files.iter().map(|file| (file.path.as_str(), Some(file))));
    let mut archive = tar::Builder::new(Vec::new());
    for (path, file) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_mtime(time);
        header.set_uid(0);
        header.set_gid(0);
        if let Some(file) = file {
            header.set_entry_type(tar::EntryType::Regular);
            header.set_mode(file.mode);
            header.set_size(u64::try_from(file.content.len())?);
            archive.append_data(&mut header, path, file.content.as_slice())?;
        } else {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(DIRECTORY_MODE);
            header.set_size(0);
            archive.append_data(&mut header, format!("{path}/"), std::io::empty())?;
        }
    }
    archive.into_inner().context("cannot finish the archive")
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let header = GzBuilder::new().mtime(0).operating_system(UNKNOWN_SYSTEM);
    let mut writer = header.write(Vec::new(), Compression::best());
    writer.write_all(bytes)?;
    writer.finish().context("cannot compress the layer")
}

fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(bytes))
}

fn hex(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
