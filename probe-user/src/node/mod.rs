//! This node: processes, cgroups, network namespaces, sysctls, and what its kernel offers.

pub mod addresses;
pub mod cgroup;
pub mod cgroup_id;
pub mod cmdline;
pub mod configured;
pub mod conntrack_text;
pub mod ipvs_module;
pub mod kernel_info;
pub mod mounts;
pub mod netns;
pub mod port_ranges;
pub mod process;
pub mod sockets;
pub mod sysctl;
