//! Where the kernel fields are that the BPF programs read: resolved from the running kernel's BTF.
//!
//! Rust has no CO-RE relocations, so the offsets are passed to the programs as read-only globals.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;

use super::btf::Btf;

/// Offset that the BPF programs take for "this kernel has no such field".
pub const ABSENT: u32 = u32::MAX;

/// One field: the global that carries its offset, its struct, its path with dots, and whether tracing needs it.
struct Field(&'static str, &'static str, &'static str, bool);

const FIELDS: &[Field] = &[
    Field("SK_FAMILY", "sock_common", "skc_family", true),
    Field("SK_NUM", "sock_common", "skc_num", true),
    Field("SK_DPORT", "sock_common", "skc_dport", true),
    Field("SK_RCV_SADDR", "sock_common", "skc_rcv_saddr", true),
    Field("SK_DADDR", "sock_common", "skc_daddr", true),
    // Absent where the kernel is built without IPv6.
    Field("SK_V6_RCV_SADDR", "sock_common", "skc_v6_rcv_saddr", false),
    Field("SK_V6_DADDR", "sock_common", "skc_v6_daddr", false),
    Field("SK_NET", "sock_common", "skc_net", true),
    Field("SK_STATE", "sock_common", "skc_state", true),
    Field("SK_ERR", "sock", "sk_err", true),
    Field("TCP_WRITE_SEQ", "tcp_sock", "write_seq", true),
    Field("TCP_SND_UNA", "tcp_sock", "snd_una", true),
    Field("NET_INUM", "net", "ns.inum", true),
    Field("SKB_HEAD", "sk_buff", "head", true),
    Field("SKB_TRANSPORT", "sk_buff", "transport_header", true),
    Field("SKB_NETWORK", "sk_buff", "network_header", true),
    Field("SKB_MAC", "sk_buff", "mac_header", true),
    Field("SKB_DATA", "sk_buff", "data", true),
    Field("SKB_LEN", "sk_buff", "len", true),
    Field("SKB_DATA_LEN", "sk_buff", "data_len", true),
    Field("SKB_DEV", "sk_buff", "dev", true),
    Field("SKB_SK", "sk_buff", "sk", true),
    Field("DEV_NET", "net_device", "nd_net", true),
    Field("DEV_NAME", "net_device", "name", true),
    Field("DEV_INDEX", "net_device", "ifindex", true),
    Field("DEV_TYPE", "net_device", "type", true),
    Field("TASK_LEADER", "task_struct", "group_leader", false),
    Field("TASK_START", "task_struct", "start_boottime", false),
    Field("TASK_MM", "task_struct", "mm", false),
    Field("MM_ARG_START", "mm_struct", "arg_start", false),
    Field("MM_ARG_END", "mm_struct", "arg_end", false),
];

/// `struct ip_vs_conn_param` lives in the module. Its head is the same from 4.15 to 7.2, so where the module has no
/// BTF (before 5.11) these offsets stand: two pointers and an address pointer, then the ports.
const CONN_PARAM: &[(&str, &str, u32)] =
    &[("CONN_PARAM_CPORT", "cport", 24), ("CONN_PARAM_VPORT", "vport", 26)];

/// Why the layout could not be resolved.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// No BTF.
    #[error(
        "read kernel type information {path}: {error}; portclash needs a kernel built with CONFIG_DEBUG_INFO_BTF=y \
         (every distribution kernel since 2020 is)"
    )]
    NoBtf {
        /// File that was tried.
        path: String,
        /// What the reader said.
        error: String,
    },
    /// A field is missing.
    #[error(
        "this kernel's type information has no field {structure}.{field}; please report kernel version and distribution"
    )]
    NoField {
        /// Kernel struct.
        structure: &'static str,
        /// Path inside it.
        field: &'static str,
    },
}

/// Offsets and prototypes of one kernel.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    /// Global of the BPF object → offset in bytes.
    pub offsets: BTreeMap<&'static str, u32>,
    /// Number of arguments of each function that is hooked by fentry, where the kernel has it.
    pub arguments: BTreeMap<&'static str, usize>,
    /// Arguments of the tracepoint tcp:tcp_send_reset, where BTF describes it.
    pub reset_tracepoint_arguments: Option<usize>,
    /// Names of `enum sk_rst_reason` by number, without their common prefix (6.10 and later).
    pub reset_reasons: BTreeMap<i32, String>,
}

/// Functions whose presence and prototype decide between rungs.
const FUNCTIONS: &[&str] =
    &["tcp_connect", "tcp_v4_connect", "tcp_v6_connect", "tcp_v4_send_reset", "tcp_v6_send_reset"];

impl Layout {
    /// Resolves every field from `<btf_dir>/vmlinux`, and those of IPVS from `<btf_dir>/ip_vs` if that exists.
    /// `btf_dir` is normally `/sys/kernel/btf`.
    pub fn resolve(btf_dir: &Path) -> Result<Self, LayoutError> {
        let path = btf_dir.join("vmlinux");
        let btf = Btf::parse(&read_btf(&path)?).map_err(|error| LayoutError::NoBtf {
            path: path.display().to_string(),
            error: error.to_string(),
        })?;
        let mut layout = Self::default();
        for &Field(global, structure, field, required) in FIELDS {
            match btf.offset_of(structure, field) {
                Some(offset) => drop(layout.offsets.insert(global, offset)),
                None if required => return Err(LayoutError::NoField { structure, field }),
                None => drop(layout.offsets.insert(global, ABSENT)),
            }
        }
        for &function in FUNCTIONS {
            if let Some(count) = btf.function_parameters(function) {
                layout.arguments.insert(function, count);
            }
        }
        // The prototype of a raw tracepoint has the tracer's private pointer in front.
        layout.reset_tracepoint_arguments =
            btf.pointer_parameters("btf_trace_tcp_send_reset").and_then(|count| count.checked_sub(1));
        let reasons = btf.enumerators("sk_rst_reason").into_iter();
        layout.reset_reasons = reasons
            .map(|(name, value)| (value, name.trim_start_matches("SK_RST_REASON_").to_owned()))
            .collect();
        layout.offsets.insert("SECOND_ARGUMENT", second_argument(&btf).unwrap_or(ABSENT));
        layout.resolve_ipvs(&btf_dir.join("ip_vs"), &btf);
        Ok(layout)
    }

    fn resolve_ipvs(&mut self, path: &Path, base: &Btf<'_>) {
        let module = read_btf(path).ok().and_then(|file| Btf::parse_split(&file, base).ok());
        for &(global, field, known) in CONN_PARAM {
            let found = module.as_ref().and_then(|btf| btf.offset_of("ip_vs_conn_param", field));
            self.offsets.insert(global, found.unwrap_or(known));
        }
    }

    /// True where it is known in which register a system call's second argument is kept.
    pub fn keeps_arguments(&self) -> bool {
        self.offsets.get("SECOND_ARGUMENT").is_some_and(|offset| *offset != ABSENT)
    }

    /// True where the kernel tells why it resets, and so where the tracepoint fires without a socket (6.10 and later).
    pub fn reset_tracepoint_without_socket(&self) -> bool {
        self.reset_tracepoint_arguments.is_some_and(|count| count >= 3)
    }
}

/// Where `struct pt_regs` keeps the second argument of a system call: x86-64 `si`, arm64 `regs[1]`.
fn second_argument(btf: &Btf<'_>) -> Option<u32> {
    let arm64 = || btf.offset_of("user_pt_regs", "regs").map(|first| first + 8);
    btf.offset_of("pt_regs", "si").or_else(arm64)
}

fn read_btf(path: &Path) -> Result<Bytes, LayoutError> {
    let error = |error: std::io::Error| LayoutError::NoBtf {
        path: path.display().to_string(),
        error: error.to_string(),
    };
    std::fs::read(path).map(Bytes::from).map_err(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Offsets that no configuration moves on 64-bit kernels from 5.4 on (kernel reference, section 8).
    #[test]
    fn own_kernel_has_the_fixed_offsets() {
        let Ok(layout) = Layout::resolve(Path::new("/sys/kernel/btf")) else {
            assert!(!Path::new("/sys/kernel/btf/vmlinux").exists(), "BTF is there but does not resolve");
            return;
        };
        for (global, offset) in [
            ("SK_DADDR", 0),
            ("SK_RCV_SADDR", 4),
            ("SK_DPORT", 12),
            ("SK_NUM", 14),
            ("SK_FAMILY", 16),
            ("SK_STATE", 18),
            ("SK_NET", 48),
            ("SK_V6_DADDR", 56),
            ("SK_V6_RCV_SADDR", 72),
            ("SKB_DEV", 16),
            ("SKB_SK", 24),
            ("CONN_PARAM_CPORT", 24),
            ("CONN_PARAM_VPORT", 26),
        ] {
            assert_eq!(layout.offsets.get(global), Some(&offset), "{global}");
        }
        assert_eq!(layout.arguments.get("tcp_connect"), Some(&1));
        if cfg!(target_arch = "x86_64") {
            assert_eq!(layout.offsets.get("SECOND_ARGUMENT"), Some(&104), "si in asm/ptrace.h");
        }
    }

    #[test]
    fn missing_btf_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let error = Layout::resolve(folder.path()).unwrap_err().to_string();
        assert!(error.contains("vmlinux") && error.contains("CONFIG_DEBUG_INFO_BTF"), "{error}");
    }

    #[test]
    fn empty_btf_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("vmlinux"), [0u8; 24]).unwrap();
        assert!(matches!(Layout::resolve(folder.path()), Err(LayoutError::NoBtf { .. })));
    }
}
