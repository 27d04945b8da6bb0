//! `--pods`: where names of pods come from, parsed in one place for all commands.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where names of pods and Services come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PodChoice {
    /// The first that answers: kubelet, the API server, the container runtime.
    #[default]
    Auto,
    /// kubelet's `/pods`.
    Kubelet,
    /// The API server.
    Api,
    /// The container runtime.
    Cri,
    /// A file with the output of `kubectl get pods -A -o json` or `yaml`.
    File(PathBuf),
    /// Nowhere: addresses and container ids only.
    None,
}

/// What `--pods` accepts.
pub const EXPECTED: &str = "auto, kubelet, api, cri, file:PATH or none";

impl FromStr for PodChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "kubelet" => Ok(Self::Kubelet),
            "api" => Ok(Self::Api),
            "cri" => Ok(Self::Cri),
            "none" => Ok(Self::None),
            _ => match text.strip_prefix("file:") {
                Some("") => Err("a path must follow \"file:\", such as file:pods.json".to_owned()),
                Some(path) => Ok(Self::File(PathBuf::from(path))),
                None => Err(format!("expected {EXPECTED}")),
            },
        }
    }
}

impl fmt::Display for PodChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Kubelet => f.write_str("kubelet"),
            Self::Api => f.write_str("api"),
            Self::Cri => f.write_str("cri"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::None => f.write_str("none"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_choice_is_read_as_it_is_written() {
        for text in ["auto", "kubelet", "api", "cri", "none", "file:a b/pods.json", "file:file:x"] {
            assert_eq!(text.parse::<PodChoice>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_wrong_choice_says_what_would_be_right() {
        for text in ["", "Kubelet", "/tmp/pods.json", "files:x"] {
            assert_eq!(text.parse::<PodChoice>().unwrap_err(), format!("expected {EXPECTED}"), "{text}");
        }
        assert!("file:".parse::<PodChoice>().unwrap_err().contains("file:pods.json"));
    }
}
