//! Where the kernel begins its search for a port, which decides whether other processes move a program's ports.

use crate::node::kernel_info::KernelVersion;

/// What decides where the search of a connect() begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SearchPosition {
    /// One hint for the whole machine (`static u32 hint`): every connect of any process moves everybody on by two.
    Global,
    /// A table by (source, destination, destination port): only connects to the same destination move it on.
    PerDestination,
    /// This release may have either.
    Unknown,
}

/// Average step between two connects to one destination, in ports: 2, or 2 to 16 with the table (measured: +9.0).
const STEP_GLOBAL: u32 = 2;
const STEP_TABLE: u32 = 9;

impl SearchPosition {
    /// By the release, as `uname -r` prints it. The table came with 5.12 (commit 190cc82489f4) and, in May and June
    /// 2022, into the stable series that lived then. Distributions port such changes back without changing the
    /// number, so that an older release with their suffix is unknown.
    pub fn of_release(release: &str) -> Self {
        let Some(version) = KernelVersion::parse(release) else { return Self::Unknown };
        if version >= KernelVersion(5, 12, 0) {
            return Self::PerDestination;
        }
        if !is_mainline(release) {
            return Self::Unknown;
        }
        let KernelVersion(major, minor, patch) = version;
        // First release that is known to have it, last one that is known not to have it.
        let (with, without) = match (major, minor) {
            (5, 10) => (119, 118),
            (5, 4) => (291, 189),
            (4, 19) => (247, 246),
            (4, 14) => (u32::MAX, 275),
            (4, 9) => (u32::MAX, 310),
            (4, 4) => (u32::MAX, 302),
            // Ended before it was ported back.
            _ => (u32::MAX, u32::MAX),
        };
        match patch {
            patch if patch >= with && with != u32::MAX => Self::PerDestination,
            patch if patch <= without => Self::Global,
            _ => Self::Unknown,
        }
    }

    /// How many connects to one destination can fail one after another if `block` service ports lie side by side:
    /// consecutive connects are about 9 ports apart (table) or 2 (global hint, and both parities are not tried).
    pub const fn in_a_row(self, block: u32) -> u32 {
        match self {
            Self::Global => block.div_ceil(STEP_GLOBAL),
            Self::PerDestination | Self::Unknown => block.div_ceil(STEP_TABLE),
        }
    }
}

/// `5.10.262`, `5.15.0-rc1`, `6.1.0+`: no suffix of a distribution.
fn is_mainline(release: &str) -> bool {
    let rest = release.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    rest.is_empty() || rest == "+" || rest.starts_with("-rc")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_decides_where_it_can() {
        use SearchPosition::{Global, PerDestination, Unknown};
        for (release, expected) in [
            ("6.1.0-50-amd64", PerDestination),
            ("7.2-rc1", PerDestination),
            ("5.12.0", PerDestination),
            ("5.10.262", PerDestination),
            ("5.10.118", Global),
            ("5.4.291", PerDestination),
            ("5.4.200", Unknown),
            ("5.4.100", Global),
            ("4.18.20", Global),
            ("5.0.21", Global),
            ("5.3.18", Global),
            // Debian and Red Hat keep the number and port changes back.
            ("5.10.0-30-amd64", Unknown),
            ("4.18.0-553.el8_10.x86_64", Unknown),
            ("4.14.336", Unknown),
            ("nonsense", Unknown),
        ] {
            assert_eq!(SearchPosition::of_release(release), expected, "{release}");
        }
    }

    #[test]
    fn a_block_of_services_fails_several_connects_in_a_row() {
        assert_eq!(SearchPosition::PerDestination.in_a_row(2768), 308);
        assert_eq!(SearchPosition::Global.in_a_row(2768), 1384);
        assert_eq!(SearchPosition::PerDestination.in_a_row(1), 1);
    }
}
