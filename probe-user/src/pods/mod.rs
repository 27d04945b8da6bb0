//! Who has this address and port, and which probe calls it: pods from kubelet, API server, container runtime or file.

pub mod update;
