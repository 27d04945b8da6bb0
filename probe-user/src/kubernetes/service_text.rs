//! What `kubectl get svc` prints: with and without NAMESPACE and TYPE columns, with `-o wide`, with or without its
//! header, or pasted with its columns no longer aligned.

use std::collections::BTreeMap;

use super::list::{Form, ParseError, ServiceList};
use super::objects::{port, protocol, service_type};
use super::service::{KubeService, ServicePort, ServiceType};
use crate::ipvs::rows::RowLog;
use crate::ipvs::table::canonical_ip;

/// How many lines are looked at to tell what a text is.
const LOOKED_AT: usize = 50;

/// Whether `text` has a row or the header of such a listing.
pub(super) fn looks_like_it(text: &str) -> bool {
    text.lines().filter(|line| !line.trim().is_empty()).take(LOOKED_AT).any(|line| match Header::of(line) {
        Some(header) => header.layout != Layout::OtherTable,
        None => old_row(line) || text_row(line, None).is_ok(),
    })
}

/// Reads a listing.
pub(super) fn parse(text: &str) -> Result<ServiceList, ParseError> {
    let mut log = RowLog::default();
    let mut items = Vec::new();
    let mut notes = Notes::default();
    let mut header: Option<Header> = None;
    let mut old_layout = None;
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let trimmed = line.trim();
        if trimmed.is_empty() || is_prompt(trimmed) {
            continue;
        }
        if let Some(found) = Header::of(line) {
            if found.layout == Layout::Old {
                return Err(ParseError::OldLayout { line: number });
            }
            header = Some(found);
            continue;
        }
        if trimmed.starts_with("No resources found") {
            notes.nothing_found = true;
            continue;
        }
        if header.as_ref().is_some_and(|header| header.layout == Layout::OtherTable) {
            notes.other_rows += 1;
            continue;
        }
        match text_row(line, header.as_ref()) {
            Ok(row) => {
                notes.see(&row);
                items.push(row.service);
            }
            Err(reason) => {
                if header.is_none() && old_row(line) {
                    old_layout.get_or_insert(number);
                }
                log.push(number, trimmed.as_bytes(), reason);
            }
        }
    }
    if let (Some(line), true) = (old_layout, items.is_empty()) {
        return Err(ParseError::OldLayout { line });
    }
    Ok(ServiceList {
        form: Form::Text,
        items,
        unreadable: log.finish(),
        notes: notes.finish(),
        others: BTreeMap::new(),
        cut_short: None,
    })
}

/// The command above a pasted listing, or a comment.
fn is_prompt(line: &str) -> bool {
    line.starts_with("# ") || line.starts_with("$ ") || line.starts_with('#') && line.contains("kubectl")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    Services,
    /// One Service in several rows (kubernetes/kubernetes#7658).
    Old,
    /// Another table of `kubectl get all`.
    OtherTable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Namespace,
    Name,
    Type,
    ClusterIp,
    ExternalIp,
    Ports,
    Other,
}

/// The header line: which column begins where.
struct Header {
    layout: Layout,
    /// Byte offset of each column.
    columns: Vec<(usize, Column)>,
}

impl Header {
    fn of(line: &str) -> Option<Self> {
        let line = line.trim_end();
        let words: Vec<(usize, &str)> = words_with_offsets(line).collect();
        let (_, first) = words.first()?;
        if *first != "NAMESPACE" && *first != "NAME" {
            return None;
        }
        // A row of a namespace or Service cannot be in capitals.
        let has = |wanted: &str| words.iter().any(|(_, word)| word.replace('_', "-") == wanted);
        let layout = if has("CLUSTER-IP") && has("PORT(S)") {
            Layout::Services
        } else if has("IP(S)") || (has("IP") && has("LABELS") && has("SELECTOR")) {
            Layout::Old
        } else {
            Layout::OtherTable
        };
        let column = |word: &str| match word.replace('_', "-").as_str() {
            "NAMESPACE" => Column::Namespace,
            "NAME" => Column::Name,
            "TYPE" => Column::Type,
            "CLUSTER-IP" => Column::ClusterIp,
            "EXTERNAL-IP" => Column::ExternalIp,
            "PORT(S)" => Column::Ports,
            _ => Column::Other,
        };
        let columns = words.iter().map(|(at, word)| (*at, column(word))).collect();
        Some(Self { layout, columns })
    }

    /// The cells of `line`: word by word if there is one for each column, else by position.
    fn cells<'l>(&self, line: &'l str) -> Result<Vec<(Column, &'l str)>, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let columns = self.columns.iter().map(|(_, column)| *column);
        if words.len() == self.columns.len() {
            return Ok(columns.zip(words).collect());
        }
        let starts = self.columns.iter().map(|(start, _)| *start);
        let ends = starts.clone().skip(1).chain([line.len().max(1)]);
        let mut cells = Vec::new();
        for (column, (start, end)) in columns.zip(starts.zip(ends)) {
            let before = start.checked_sub(1).and_then(|before| line.as_bytes().get(before));
            if before.is_some_and(|byte| !byte.is_ascii_whitespace()) {
                return Err("its columns are not below those of the header".to_owned());
            }
            let end = end.min(line.len());
            let cell = if start >= end { "" } else { line.get(start..end).ok_or("it is no plain text")? };
            cells.push((column, cell.trim()));
        }
        Ok(cells)
    }
}

fn words_with_offsets(line: &str) -> impl Iterator<Item = (usize, &str)> {
    line.split_whitespace().map(move |word| (word.as_ptr() as usize - line.as_ptr() as usize, word))
}

/// The cells that matter, before they are read.
#[derive(Default)]
struct Cells<'l> {
    namespace: Option<&'l str>,
    name: &'l str,
    kind: Option<&'l str>,
    cluster_ip: &'l str,
    external_ip: &'l str,
    ports: &'l str,
}

struct Row {
    service: KubeService,
    /// kubectl shortened the external addresses.
    shortened: bool,
}

fn text_row(line: &str, header: Option<&Header>) -> Result<Row, String> {
    let cells = match header {
        Some(header) => by_header(line, header)?,
        None => by_shape(line)?,
    };
    read_cells(&cells)
}

fn by_header<'l>(line: &'l str, header: &Header) -> Result<Cells<'l>, String> {
    let mut cells = Cells::default();
    for (column, cell) in header.cells(line)? {
        match column {
            Column::Namespace => cells.namespace = Some(cell),
            Column::Name => cells.name = cell,
            Column::Type => cells.kind = Some(cell),
            Column::ClusterIp => cells.cluster_ip = cell,
            Column::ExternalIp => cells.external_ip = cell,
            Column::Ports => cells.ports = cell,
            Column::Other => {}
        }
    }
    Ok(cells)
}

/// Without a header: the cluster IP is the first word that is an address, the type has capitals, names have not.
fn by_shape(line: &str) -> Result<Cells<'_>, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let at = words
        .iter()
        .position(|word| is_cluster_ip(word))
        .ok_or("it has no cluster IP, which a row of `kubectl get svc` has")?;
    let (before, after) = words.split_at(at);
    let (namespace, name, kind) = match *before {
        [name] => (None, name, None),
        [name, kind] if service_type(kind).is_ok() => (None, name, Some(kind)),
        [namespace, name] => (Some(namespace), name, None),
        [namespace, name, kind] => (Some(namespace), name, Some(kind)),
        _ => return Err("the words before its cluster IP are not namespace, name and type".to_owned()),
    };
    let [cluster_ip, external_ip, ports, ..] = *after else {
        return Err("it ends before its ports".to_owned());
    };
    Ok(Cells { namespace, name, kind, cluster_ip, external_ip, ports })
}

fn is_cluster_ip(word: &str) -> bool {
    matches!(word, "None" | "<none>") || word.split(',').all(|ip| ip.parse::<std::net::IpAddr>().is_ok())
}

fn read_cells(cells: &Cells<'_>) -> Result<Row, String> {
    let name = cells.name.strip_prefix("service/").or_else(|| cells.name.strip_prefix("svc/"));
    let name = name.unwrap_or(cells.name);
    let kind = cells.kind.map(service_type).transpose()?;
    for (word, what) in [(Some(name), "name"), (cells.namespace, "namespace")] {
        if let Some(word) = word.filter(|word| !is_name(word)) {
            return Err(format!("`{word}` is no {what} of a Service"));
        }
    }
    let cluster_ips = match cells.cluster_ip {
        "None" | "<none>" | "" => Vec::new(),
        list => list
            .split(',')
            .map(|ip| ip.parse().map(canonical_ip).map_err(|_| format!("cluster IP `{ip}` is no address")))
            .collect::<Result<_, _>>()?,
    };
    let external = External::of(cells.external_ip);
    let (external_ips, load_balancer_ips) = match kind {
        Some(ServiceType::LoadBalancer) => (Vec::new(), external.ips),
        _ => (external.ips, Vec::new()),
    };
    let service = KubeService {
        namespace: cells.namespace.map(str::to_owned),
        name: name.to_owned(),
        kind,
        cluster_ips,
        external_ips,
        load_balancer_ips,
        ports: read_ports(cells.ports)?,
        health_check_node_port: None,
    };
    Ok(Row { service, shortened: external.shortened })
}

/// Letters, digits, `-` and `.`: what the API server lets in.
fn is_name(word: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    !word.is_empty() && word.len() <= 253 && word.bytes().all(inner)
}

struct External {
    ips: Vec<std::net::IpAddr>,
    shortened: bool,
}

impl External {
    /// Addresses; host names, `<none>`, `<pending>`, `<nodes>` and `<unknown>` are none.
    fn of(cell: &str) -> Self {
        let shortened = cell.ends_with("...");
        let mut words: Vec<&str> = cell.split(',').collect();
        if shortened {
            // What is left of an address may look like one: `10.0.0.12...` may have been 10.0.0.123.
            words.pop();
        }
        let mut ips = Vec::new();
        for ip in words.into_iter().filter_map(|word| word.parse().map(canonical_ip).ok()) {
            if !ips.contains(&ip) {
                ips.push(ip);
            }
        }
        Self { ips, shortened }
    }
}

fn read_ports(cell: &str) -> Result<Vec<ServicePort>, String> {
    if matches!(cell, "<none>" | "") {
        return Ok(Vec::new());
    }
    cell.split(',').map(read_port).collect()
}

/// `443:36704/TCP`, or `443/TCP` without a node port.
fn read_port(word: &str) -> Result<ServicePort, String> {
    let (numbers, protocol_name) =
        word.split_once('/').ok_or_else(|| format!("`{word}` is no port with its protocol"))?;
    let (service, node) = match numbers.split_once(':') {
        Some((service, node)) => (service, Some(node)),
        None => (numbers, None),
    };
    let number = |text: &str, what: &str| {
        let number = text.parse().map_err(|_| format!("{what} `{text}` is not a number"))?;
        port(number, what)
    };
    if protocol_name.is_empty() {
        return Err(format!("`{word}` ends before its protocol"));
    }
    Ok(ServicePort {
        name: None,
        protocol: protocol(Some(protocol_name))?,
        port: number(service, "port")?,
        node_port: node.map(|node| number(node, "node port")).transpose()?,
    })
}

/// kubectl before 1.1 without its header: name, labels, selector, address, port.
fn old_row(line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    let labels = |word: &str| word == "<none>" || word.contains('=');
    match *words {
        [name, second, third, ip, port] => {
            is_name(name)
                && labels(second)
                && labels(third)
                && ip.parse::<std::net::IpAddr>().is_ok()
                && read_port(port).is_ok()
        }
        _ => false,
    }
}

/// What to tell about a listing as a whole.
#[derive(Default)]
struct Notes {
    no_namespace: bool,
    no_type: bool,
    shortened: usize,
    hidden_node_ports: usize,
    other_rows: usize,
    nothing_found: bool,
}

impl Notes {
    fn see(&mut self, row: &Row) {
        let service = &row.service;
        self.no_namespace |= service.namespace.is_none();
        self.no_type |= service.kind.is_none();
        self.shortened += usize::from(row.shortened);
        let has_node_port = service.ports.iter().any(|port| port.node_port.is_some());
        let should = service.kind == Some(ServiceType::NodePort) && !service.ports.is_empty();
        self.hidden_node_ports += usize::from(should && !has_node_port);
    }

    fn finish(self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.no_namespace {
            notes.push("this listing has no namespaces (`kubectl get svc -A` prints them)".to_owned());
        }
        if self.no_type {
            notes.push("this listing has no types of Services".to_owned());
        }
        if self.shortened > 0 {
            let n = self.shortened;
            notes.push(format!(
                "kubectl shortened the external addresses of {n} Services: use -o wide or json"
            ));
        }
        if self.hidden_node_ports > 0 {
            let n = self.hidden_node_ports;
            notes.push(format!(
                "{n} Services of type NodePort show no node port (kubectl before 1.4 does not print them): use -o json"
            ));
        }
        if self.other_rows > 0 {
            notes.push(format!("{} rows of other tables were left out", self.other_rows));
        }
        if self.nothing_found {
            notes.push("kubectl found no Services".to_owned());
        }
        notes.push(
            "a listing does not show healthCheckNodePorts and the names of ports: -o json does".to_owned(),
        );
        notes
    }
}

#[cfg(test)]
#[path = "service_text_tests.rs"]
mod tests;
