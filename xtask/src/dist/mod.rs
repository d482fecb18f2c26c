//! What is handed out: packages and images, each made from a binary that was built before. The same input gives the same
//! bytes.

pub(crate) mod archive;
pub(crate) mod deb;
pub(crate) mod files;
pub(crate) mod image;
pub(crate) mod ipk;

use std::path::{Path, PathBuf};

/// What a package is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    /// The binary, for [`Source::target`], static.
    pub(crate) binary: &'a Path,
    /// Rust's name of the machine it is for, `aarch64-unknown-linux-musl`.
    pub(crate) target: &'a str,
    /// Which programs it holds.
    pub(crate) build: Build,
    /// Version of the workspace.
    pub(crate) version: &'a str,
    /// The time that every file bears, seconds since 1970: `SOURCE_DATE_EPOCH`.
    pub(crate) epoch: u64,
}

/// Which programs a binary holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Build {
    /// What a gateway needs.
    Device,
    /// Everything.
    Full,
}

impl Build {
    /// Names of packages.
    pub(crate) fn package(self) -> &'static str {
        match self {
            Self::Device => "postern-device",
            Self::Full => "postern",
        }
    }

    /// Programs that are links to the binary.
    pub(crate) fn links(self) -> &'static [&'static str] {
        match self {
            Self::Device => &["sshnpd"],
            Self::Full => &["sshnpd", "sshnp", "npt", "srvd", "srv", "at_activate", "npp", "npp_file", "npp_atserver"],
        }
    }
}

/// Something that was made.
#[derive(Clone, Debug)]
pub(crate) struct Artefact {
    /// Where it lies.
    pub(crate) path: PathBuf,
    /// Rust's name of the machine it is for.
    pub(crate) target: String,
    /// `deb`, `ipk`, `tar.gz`, `image`.
    pub(crate) kind: &'static str,
}
