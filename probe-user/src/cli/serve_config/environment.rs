//! `PORTCLASH_RECORD_SIZE` for `--record-size`.

use std::ffi::{OsStr, OsString};

use super::known::{Options, Takes};
use super::{ConfigError, Given, Place};

const PREFIX: &str = "PORTCLASH_";
/// Names the file.
pub(super) const CONFIG: &str = "PORTCLASH_CONFIG";
/// Variables that are no options: the log's filter, the file, and one of the build.
const OTHERS: [&str; 3] = ["PORTCLASH_LOG", CONFIG, "PORTCLASH_EBPF_RUSTC"];

/// The value of one variable.
pub(super) fn value<'a>(variables: &'a [(OsString, OsString)], name: &str) -> Option<&'a OsStr> {
    variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_os_str())
}

/// The options among the variables. An empty variable says nothing: manifests often leave one empty. Values of an option
/// that takes several are separated by commas.
pub(super) fn read(variables: &[(OsString, OsString)], options: &Options) -> Result<Vec<Given>, ConfigError> {
    let mut given = Vec::new();
    for (name, value) in variables {
        let name = name.to_string_lossy();
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        if OTHERS.contains(&&*name) || is_service_link(&name, variables) {
            continue;
        }
        let key = rest.to_ascii_lowercase().replace('_', "-");
        let Some(known) = options.get(&key) else {
            let nearest = options.nearest(&key).map(variable_name);
            let (place, name) = ("environment".to_owned(), name.into_owned());
            return Err(ConfigError::Unknown { place, what: "variable", name, nearest });
        };
        let place = Place::Variable(name.into_owned());
        let Some(value) = value.to_str() else {
            let problem = "its value is no UTF-8".to_owned();
            return Err(ConfigError::Value { place: place.to_string(), problem });
        };
        let values: Vec<String> = match known.takes {
            Takes::Many => value.split(',').map(|part| part.trim().to_owned()).collect(),
            Takes::Nothing | Takes::One => vec![value.to_owned()],
        };
        if !value.trim().is_empty() {
            given.push(Given { key, values, place });
        }
    }
    given.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(given)
}

/// The variable of an option.
fn variable_name(key: &str) -> String {
    format!("{PREFIX}{}", key.to_ascii_uppercase().replace('-', "_"))
}

/// Kubernetes describes every Service of a pod's namespace in variables (`enableServiceLinks`); a Service named
/// `portclash` or `portclash-metrics` makes some that look like ours.
fn is_service_link(name: &str, variables: &[(OsString, OsString)]) -> bool {
    let service = ["_SERVICE_", "_PORT"].iter().filter_map(|part| name.find(part)).min();
    let Some(service) = service.and_then(|end| name.get(..end)) else { return false };
    value(variables, &format!("{service}_SERVICE_HOST")).is_some()
}
