//! The lab: a virtual machine that plays a Kubernetes node with real IPVS, and the scenarios that run on it.
//!
//! `cargo xtask test` and `cargo xtask demo` boot it; `lab-init` is its PID 1.

mod bench;
pub mod cgroups;
pub mod child;
pub mod client;
pub mod containers;
pub mod expect;
pub mod guest;
pub mod host;
pub mod kube_server;
pub mod kubelet;
pub mod lab;
pub mod netns;
pub mod node;
pub mod offline;
pub mod output;
pub mod prober;
pub mod process;
pub mod reliability;
pub mod scenarios;
pub mod server;
pub mod sidecar;
pub mod story;
pub mod tracer;
pub mod watched;
pub mod written;
pub mod yaml;
