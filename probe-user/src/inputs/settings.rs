//! Settings as people paste them: output of `sysctl`, files of sysctl.d, and the API server's range of node ports.

/// The value of `--service-node-port-range` in a line: arguments, the output of `ps`, a manifest of a static pod.
pub(crate) fn node_port_argument(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("--service-node-port-range")?;
    let value = rest.strip_prefix(['=', ' ', '\0'])?.trim_start();
    let end = value.find(|c: char| !c.is_ascii_digit() && !matches!(c, '-' | '+')).unwrap_or(value.len());
    value.get(..end).filter(|value| !value.is_empty())
}
