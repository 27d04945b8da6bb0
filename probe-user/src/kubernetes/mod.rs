//! Kubernetes objects as far as portclash uses them: Services and Pods, whatever they were read from.

pub mod pod;
pub mod service;
