//! One image for machines of several kinds: an engine or a registry takes the part that fits.
//!
//! Source: OCI image specification 1.1, image layout and image index, in a tar. `docker load` of an engine with containerd's
//! image store reads it, and `skopeo copy --all` carries it to a registry. Health checks are Docker's, and no part of that
//! specification: Docker reads them here too, Podman does not.

use std::path::Path;

use serde_json::{Value, json};

use super::archive::{Entry, tar, with_folders};
use super::files::{digest, write};
use super::image::{Image, Role, assemble, machine};
use super::{Artefact, Source};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Makes the image of `role` for the machines of all `sources` in `folder`.
///
/// # Errors
/// A binary cannot be read; no engine has a name for a machine.
pub(crate) fn make(sources: &[Source<'_>], role: Role, folder: &Path) -> anyhow::Result<Artefact> {
    let first = sources.first().ok_or_else(|| anyhow::anyhow!("an image for no machine"))?;
    let mut blobs = Blobs::default();
    let mut manifests = Vec::new();
    for source in sources {
        let Image { config, layer, .. } = assemble(*source, role)?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": blobs.add(CONFIG, serde_json::to_vec(&config)?),
            "layers": [blobs.add(LAYER, layer)],
        });
        let mut descriptor = blobs.add(MANIFEST, serde_json::to_vec(&manifest)?);
        let (machine, variant) = machine(source.target)?;
        descriptor["platform"] = json!({ "architecture": machine, "os": "linux" });
        if let Some(variant) = variant {
            descriptor["platform"]["variant"] = json!(variant);
        }
        manifests.push(descriptor);
    }
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
    let mut top = blobs.add(INDEX, serde_json::to_vec(&index)?);
    top["annotations"] = json!({
        "org.opencontainers.image.ref.name": "latest",
        "io.containerd.image.name": format!("docker.io/{}", role.tag()),
    });
    let layout = json!({ "imageLayoutVersion": "1.0.0" });
    let outer = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [top] });
    let mut entries = blobs.entries;
    entries.push(Entry::file("oci-layout", serde_json::to_vec(&layout)?));
    entries.push(Entry::file("index.json", serde_json::to_vec(&outer)?));
    let name = format!("postern-{}_{}_multi.oci.tar", role.name(), first.version);
    let path = write(folder, &name, &tar(&with_folders(entries), "", first.epoch)?)?;
    Ok(Artefact { path, target: "all".to_owned(), kind: "index", unpacked: None })
}

/// Contents by their digests.
#[derive(Default)]
struct Blobs {
    entries: Vec<Entry>,
}

impl Blobs {
    /// Keeps it, and returns its descriptor.
    fn add(&mut self, media: &str, bytes: Vec<u8>) -> Value {
        let digest = digest(&bytes);
        let descriptor = json!({ "mediaType": media, "digest": format!("sha256:{digest}"), "size": bytes.len() });
        let path = format!("blobs/sha256/{digest}");
        if !self.entries.iter().any(|entry| entry.path == path) {
            self.entries.push(Entry::file(&path, bytes));
        }
        descriptor
    }
}
