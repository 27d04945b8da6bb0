//! Tables, lists, settings and logs.

use std::sync::Arc;

use super::offline::Options;
use super::offline_packets::{plural, rows};
use crate::analysis::material::{FromInput, Material};
use crate::analysis::model::InputAccount;
use crate::inputs::incidents::{self, Record};
use crate::inputs::{Found, Kind, settings};
use crate::ipvs::{self, Content};
use crate::kubelet_log::{self, LineParser, Times, YearRule};
use crate::kubernetes::kube_proxy_log;
use crate::kubernetes::list::{self, ListKind};
use crate::kubernetes::pod_text;
use crate::node::sockets::text::parse_sockets;
use crate::observation::Nanos;
use crate::{access_log, node};

/// Failures, rows and requests kept of all inputs together, each.
const MAX_ROWS: usize = 1 << 20;
/// A log goes on a little longer than the last packet.
const AFTER_PACKETS: Nanos = 3_600_000_000_000;

pub(super) struct TextReader<'a> {
    options: &'a Options,
    pub(super) material: Material,
    left_out: u64,
}

impl<'a> TextReader<'a> {
    pub(super) fn new(options: &'a Options) -> Self {
        Self { options, material: Material::default(), left_out: 0 }
    }

    pub(super) fn finish(mut self) -> Material {
        if self.left_out > 0 {
            let count = self.left_out;
            self.material
                .incomplete
                .push(format!("{count} rows of tables and logs were left out: too many to be kept"));
        }
        self.material
    }

    /// Takes a table, a list or settings.
    pub(super) fn table(&mut self, kind: Kind, found: &mut Found<'_>, account: &mut InputAccount) {
        let before = account.skipped.len();
        match kind {
            Kind::Conntrack => self.conntrack(found, account),
            Kind::AccessLog => self.requests(found, account),
            Kind::Incidents => self.incidents(found, account),
            _ => self.whole(kind, found, account),
        }
        let lost = account.skipped.iter().skip(before);
        self.material.incomplete.extend(lost.map(|sentence| format!("{}: {sentence}", account.name)));
    }

    fn from<T>(&self, found: &Found<'_>, value: T) -> FromInput<T> {
        let at = found.modified.unwrap_or(self.options.now);
        FromInput { input: Arc::from(found.name), at, value }
    }

    /// Files that are read as a whole; the walk bounds their size.
    fn whole(&mut self, kind: Kind, found: &mut Found<'_>, account: &mut InputAccount) {
        let mut bytes = Vec::new();
        if let Err(error) = found.content.read_to_end(&mut bytes) {
            account.skipped.push(format!("reading failed after {} bytes: {error}", bytes.len()));
        }
        match kind {
            Kind::Ipvs(_) => self.ipvs(&bytes, found, account),
            Kind::Kubernetes(ListKind::Services) => self.services(&bytes, found, account),
            Kind::Kubernetes(ListKind::Pods) => self.pods(&bytes, found, account),
            Kind::PodTable => self.pod_table(&bytes, account),
            Kind::Sockets(_) => self.sockets(&bytes, found, account),
            Kind::Sysctls | Kind::Arguments => self.settings(&bytes, found, account),
            Kind::KubeProxyLog => self.kube_proxy(&bytes, found, account),
            _ => "not used here".clone_into(&mut account.read),
        }
    }

    fn ipvs(&mut self, bytes: &[u8], found: &Found<'_>, account: &mut InputAccount) {
        let parsed = match ipvs::parse_services(bytes) {
            Ok(parsed) => parsed,
            Err(error) => return account.skipped.push(error.to_string()),
        };
        match parsed.content {
            Content::Services(table) => {
                account.read = plural(table.services.len(), "service");
                account.skipped.extend(rows(&table.unreadable));
                let cut = ipvs::cut_short(&table, ipvs::last_address(bytes));
                account.skipped.extend(cut.clone());
                self.material.tables.push(self.from(found, (table, cut)));
            }
            Content::Connections(table) => {
                account.read = plural(table.rows.len(), "connection");
                account.skipped.extend(rows(&table.unreadable));
                self.material.connections.push(self.from(found, table.rows));
            }
        }
        account.read += &notes(&parsed.notes);
    }

    fn services(&mut self, bytes: &[u8], found: &Found<'_>, account: &mut InputAccount) {
        match list::parse_services(bytes) {
            Ok(list) => {
                account.read = plural(list.items.len(), "Service") + &notes(&list.notes);
                account.skipped.extend(rows(&list.unreadable).into_iter().chain(list.cut_short.clone()));
                // One file may hold both.
                if list.left_out(&["Pod"]) != list.left_out(&[]) {
                    self.pods(bytes, found, account);
                }
                self.material.services.extend(list.items);
                self.material.services_from.push(Arc::from(found.name));
            }
            Err(error) => account.skipped.push(error.to_string()),
        }
    }

    fn pods(&mut self, bytes: &[u8], _found: &Found<'_>, account: &mut InputAccount) {
        match list::parse_pods(bytes) {
            Ok(list) => {
                let read = plural(list.items.len(), "Pod") + &notes(&list.notes);
                account.read = match account.read.as_str() {
                    "" => read,
                    before => format!("{before}, {read}"),
                };
                account.skipped.extend(rows(&list.unreadable).into_iter().chain(list.cut_short));
                self.material.pods.extend(list.items);
            }
            Err(error) => account.skipped.push(error.to_string()),
        }
    }

    fn pod_table(&mut self, bytes: &[u8], account: &mut InputAccount) {
        let list = pod_text::parse(bytes);
        account.read = plural(list.items.len(), "Pod") + &notes(&list.notes);
        account.skipped.extend(rows(&list.unreadable));
        self.material.named_pods.extend(list.items);
    }

    fn sockets(&mut self, bytes: &[u8], found: &Found<'_>, account: &mut InputAccount) {
        let parsed = parse_sockets(bytes);
        account.read = match (parsed.sockets.len(), parsed.counts.len()) {
            (0, counts) if counts > 0 => format!("sockets of {}", plural(counts, "local address")),
            (sockets, _) => plural(sockets, "socket"),
        };
        account.skipped.extend(rows(&parsed.unreadable));
        let sockets: Vec<_> = parsed.sockets.into_iter().map(|socket| self.from(found, socket)).collect();
        self.keep(sockets, |material| &mut material.sockets);
    }

    fn settings(&mut self, bytes: &[u8], found: &Found<'_>, account: &mut InputAccount) {
        let read = settings::parse(bytes);
        let mut said = Vec::new();
        if let Some(range) = read.local_port_range {
            said.push(format!("local port range {} to {}", range.value.first, range.value.last));
            self.material.ephemeral = Some(self.from(found, range.value));
        }
        if let Some(ports) = read.reserved_ports {
            said.push(format!("reserved ports \"{}\"", ports.value));
            self.material.reserved = Some(self.from(found, ports.value));
        }
        if let Some(range) = read.node_ports {
            said.push(format!("NodePort range {}-{}", range.value.0, range.value.1));
            self.material.node_ports = Some(self.from(found, range.value));
        }
        account.read = if said.is_empty() { "nothing about ports".to_owned() } else { said.join(", ") };
        account.skipped.extend(rows(&read.invalid));
    }

    fn kube_proxy(&mut self, bytes: &[u8], found: &Found<'_>, account: &mut InputAccount) {
        let read = kube_proxy_log::parse(bytes);
        account.read = plural(read.ports.len(), "port") + " that could not be opened";
        if !read.unreadable.is_empty() {
            let count = read.unreadable.len();
            account
                .skipped
                .push(format!("{count} lines about ports that could not be opened were not understood"));
        }
        let refused: Vec<_> = read.ports.into_iter().map(|port| self.from(found, port)).collect();
        self.material.refused.extend(refused);
    }

    fn conntrack(&mut self, found: &mut Found<'_>, account: &mut InputAccount) {
        let mut rows_read = Vec::new();
        let (mut dropped, room) = (0, MAX_ROWS.saturating_sub(self.material.tracked.len()));
        let read = node::conntrack_text::read(&mut *found.content, &mut |row| {
            if rows_read.len() < room {
                rows_read.push(row);
            } else {
                dropped += 1;
            }
        });
        self.left_out += dropped;
        account.read = format!("{} TCP connections", read.rows);
        account.skipped.extend(rows(&read.unreadable).into_iter().chain(read.cut));
        let tracked: Vec<_> = rows_read.into_iter().map(|row| self.from(found, row)).collect();
        self.material.tracked.extend(tracked);
    }

    fn incidents(&mut self, found: &mut Found<'_>, account: &mut InputAccount) {
        let mut told = Vec::new();
        let read = incidents::read(&mut *found.content, &mut |record| {
            if let Record::Incident(incident) = record {
                told.push(*incident);
            }
        });
        account.read = plural(told.len(), "incident");
        for (schema, count) in &read.others {
            account.read += &format!("; {count} of {schema}, which is not read here");
        }
        account.skipped.extend(rows(&read.unreadable).into_iter().chain(read.cut));
        let told = told.into_iter().map(|incident| self.from(found, incident)).collect();
        self.keep(told, |material| &mut material.earlier);
    }

    /// Takes incidents that were in a capture beside its packets.
    pub(super) fn attached(&mut self, attached: &[Vec<u8>], found: &Found<'_>) {
        let mut told = Vec::new();
        incidents::read(attached.join(&b'\n').as_slice(), &mut |record| {
            if let Record::Incident(incident) = record {
                told.push(self.from(found, *incident));
            }
        });
        self.keep(told, |material| &mut material.earlier);
    }

    fn requests(&mut self, found: &mut Found<'_>, account: &mut InputAccount) {
        let mut requests = Vec::new();
        let (mut dropped, room) = (0, MAX_ROWS.saturating_sub(self.material.requests.len()));
        let read = access_log::read(&mut *found.content, &mut |request| {
            // Only kubelet's rhythm tells something.
            if !request.kube_probe {
            } else if requests.len() < room {
                requests.push(request);
            } else {
                dropped += 1;
            }
        });
        self.left_out += dropped;
        account.read = format!("{} requests, {} of them probes", read.requests, requests.len());
        account.skipped.extend(rows(&read.unreadable).into_iter().chain(read.cut));
        let requests: Vec<_> = requests.into_iter().map(|request| self.from(found, request)).collect();
        self.material.requests.extend(requests);
    }

    /// Takes a kubelet's log. `latest`: when the last packet was.
    pub(super) fn log(&mut self, found: &mut Found<'_>, account: &mut InputAccount, latest: Option<Nanos>) {
        self.material.has_kubelet_log = true;
        let written = found.modified.unwrap_or(self.options.now);
        let not_after = latest.map_or(written, |latest| written.min(latest.saturating_add(AFTER_PACKETS)));
        let times = Times { zone: self.options.zone.clone(), year: YearRule::NotAfter(not_after) };
        let mut scanner = kubelet_log::Scanner::new(LineParser::new(Arc::from(found.name), times));
        let mut failures = Vec::new();
        let mut block = vec![0; 1 << 16];
        loop {
            match found.content.read(&mut block) {
                Ok(0) => break,
                Ok(count) => scanner.feed(block.get(..count).unwrap_or_default(), &mut failures),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let sentence = format!("reading failed: {error}");
                    self.material.incomplete.push(format!("{}: {sentence}", account.name));
                    account.skipped.push(sentence);
                    break;
                }
            }
        }
        scanner.finish(&mut failures);
        let counts = scanner.counts();
        account.read = format!(
            "{}, {}",
            plural(usize::try_from(scanner.lines()).unwrap_or(usize::MAX), "line"),
            plural(failures.len(), "failed probe")
        );
        if counts.assumed_utc > 0 {
            account.read += ", times without a zone read as UTC (--zone)";
        }
        let lost = [
            (counts.unreadable, "lines about failed probes name neither pod nor target"),
            (counts.without_time, "lines about failed probes have no time that can be read"),
            (scanner.too_long(), "lines are too long"),
        ];
        for (count, what) in lost.into_iter().filter(|(count, _)| *count > 0) {
            account.skipped.push(format!("{count} {what}"));
            self.material.incomplete.push(format!("{}: {count} {what}", account.name));
        }
        self.keep(failures, |material| &mut material.failures);
    }

    fn keep<T>(&mut self, mut rows: Vec<T>, list: fn(&mut Material) -> &mut Vec<T>) {
        let room = MAX_ROWS.saturating_sub(list(&mut self.material).len());
        self.left_out += rows.len().saturating_sub(room) as u64;
        rows.truncate(room);
        list(&mut self.material).extend(rows);
    }
}

fn notes(notes: &[String]) -> String {
    if notes.is_empty() { String::new() } else { format!("; {}", notes.join("; ")) }
}
