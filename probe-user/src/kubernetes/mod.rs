//! Kubernetes objects as far as portclash uses them: Services and Pods, whatever they were read from.

mod collect;
mod json;
pub mod kube_proxy_log;
pub mod list;
pub mod names;
mod objects;
pub mod pod;
mod pod_object;
pub mod pod_text;
pub mod service;
mod service_text;
pub mod stream;
mod yaml;

pub use collect::MAX_ITEMS;
pub use list::{ListKind, ParseError, PodList, ServiceList, parse_pods, parse_services, recognise};
pub use names::{ServiceName, ServiceNames};
