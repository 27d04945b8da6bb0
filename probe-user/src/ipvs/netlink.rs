//! Reads the service table of the calling thread's network namespace by generic netlink, for where
//! `/proc/net/ip_vs` is hidden. Needs CAP_NET_ADMIN in the initial user namespace; one request per service.

use std::io;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_generic::GenlMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};

use super::netlink_wire::{GET_DEST, GET_SERVICE, backends_of, put};
pub use super::netlink_wire::{Raw, parse_backend, parse_service};
use super::rows::RowLog;
use super::table::{ServiceId, ServiceTable, SharedNames};

/// Generic netlink family of the controller (`GENL_ID_CTRL`).
const CONTROLLER: u16 = 16;
const CTRL_GETFAMILY: u8 = 3;
const CTRL_ATTR_ID: u16 = 1;
const CTRL_ATTR_NAME: u16 = 2;
/// The kernel fills datagrams of a dump up to 32 KiB.
const RECEIVE_BYTES: usize = 64 * 1024;
const TRIES: usize = 3;

/// Why the table could not be read by netlink.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The kernel has no such family in this moment.
    #[error("generic netlink family \"{0}\" does not exist: IPVS is not loaded (modprobe ip_vs)")]
    FamilyMissing(String),
    /// The kernel wants a capability.
    #[error("{operation} by netlink: not permitted, needs CAP_NET_ADMIN in the initial user namespace")]
    NotPermitted {
        /// What was asked for.
        operation: &'static str,
    },
    /// Anything else.
    #[error("{operation} by netlink: {source}")]
    Failed {
        /// What was asked for.
        operation: &'static str,
        /// What the kernel answered.
        source: io::Error,
    },
}

impl NetlinkError {
    fn new(operation: &'static str, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::NotPermitted { operation },
            _ => Self::Failed { operation, source },
        }
    }
}

/// A table read by netlink.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetlinkTable {
    /// The table. What could not be read is numbered by message.
    pub table: ServiceTable,
    /// Set if the table changed during every try.
    pub note: Option<String>,
}

/// Reads the table. It blocks, and belongs on a thread that may.
///
/// Asking for the family makes the kernel load the module `ip_vs` where it can: call this only if IPVS is known to
/// be in use.
pub fn read_table() -> Result<NetlinkTable, NetlinkError> {
    let mut connection = Connection::open()?;
    let family = connection.family("IPVS")?;
    for _ in 1..TRIES {
        let (table, interrupted) = connection.table(family)?;
        if !interrupted {
            return Ok(NetlinkTable { table, note: None });
        }
    }
    let (table, interrupted) = connection.table(family)?;
    let note = interrupted.then(|| format!("the table changed while it was read, {TRIES} times in a row"));
    Ok(NetlinkTable { table, note })
}

/// Reads the services without their backends. The kernel does not say whether the table changed between two pieces of
/// its answer (`ip_vs_genl_dump_services` keeps no sequence), so they are read until two reads agree. See
/// [`read_table`] for the rest.
pub fn read_services() -> Result<NetlinkTable, NetlinkError> {
    let mut connection = Connection::open()?;
    let family = connection.family("IPVS")?;
    let mut last = connection.services(family)?.finish();
    for _ in 1..TRIES {
        let next = connection.services(family)?.finish();
        if next == last {
            return Ok(NetlinkTable { table: next, note: None });
        }
        last = next;
    }
    let note = format!("the table changed between {TRIES} reads in a row; the last one is shown");
    Ok(NetlinkTable { table: last, note: Some(note) })
}

/// Services as one dump gave them, and what could not be read of it.
struct Services {
    table: ServiceTable,
    log: RowLog,
    /// Number of the last message.
    number: usize,
    interrupted: bool,
}

impl Services {
    fn finish(mut self) -> ServiceTable {
        self.table.unreadable = self.log.finish();
        self.table
    }
}

/// The messages that answer one dump.
struct Dump {
    messages: Vec<Raw>,
    /// The kernel says that the table changed in between.
    interrupted: bool,
    /// Why the rest of a datagram could not be read.
    broken: Vec<String>,
}

struct Connection {
    socket: Socket,
    sequence: u32,
}

impl Connection {
    fn open() -> Result<Self, NetlinkError> {
        let open = || {
            let mut socket = Socket::new(NETLINK_GENERIC)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(socket)
        };
        let socket = open().map_err(|error| NetlinkError::new("opening a socket", error))?;
        Ok(Self { socket, sequence: 0 })
    }

    fn family(&mut self, name: &str) -> Result<u16, NetlinkError> {
        let operation = "looking up the family IPVS";
        let mut attributes = Vec::new();
        put(&mut attributes, CTRL_ATTR_NAME, format!("{name}\0").as_bytes());
        let request = Raw { command: CTRL_GETFAMILY, version: 1, attributes };
        let dump =
            self.ask(CONTROLLER, request, NLM_F_REQUEST).map_err(|error| match error.raw_os_error() {
                Some(libc::ENOENT) => NetlinkError::FamilyMissing(name.to_owned()),
                _ => NetlinkError::new(operation, error),
            })?;
        let id = dump.messages.iter().find_map(|message| {
            netlink_packet_core::NlasIterator::new(message.attributes.as_slice())
                .flatten()
                .find(|attribute| attribute.kind() == CTRL_ATTR_ID)
                .and_then(|attribute| attribute.value().first_chunk().copied())
        });
        id.map(u16::from_ne_bytes).ok_or_else(|| {
            NetlinkError::new(operation, io::Error::new(io::ErrorKind::InvalidData, "the answer holds no id"))
        })
    }

    fn services(&mut self, family: u16) -> Result<Services, NetlinkError> {
        let mut table = ServiceTable::default();
        let mut log = RowLog::default();
        let services = self.dump(family, GET_SERVICE, Vec::new(), "reading the services")?;
        let mut number = 0;
        let mut schedulers = SharedNames::default();
        for message in &services.messages {
            number += 1;
            match parse_service(&message.attributes) {
                Ok(mut service) => {
                    service.scheduler = service.scheduler.map(|name| schedulers.share(&name));
                    if table.services.insert(service.id, service).is_some() {
                        log.push(number, hex(&message.attributes).as_bytes(), "this service is listed twice");
                    }
                }
                Err(reason) => log.push(number, hex(&message.attributes).as_bytes(), reason),
            }
        }
        services.broken.into_iter().for_each(|reason| log.push(number, b"", reason));
        Ok(Services { table, log, number, interrupted: services.interrupted })
    }

    fn table(&mut self, family: u16) -> Result<(ServiceTable, bool), NetlinkError> {
        let Services { mut table, mut log, mut number, mut interrupted } = self.services(family)?;
        for service in table.services.values_mut() {
            let backends = self.backends(family, service.id)?;
            interrupted |= backends.interrupted;
            for message in &backends.messages {
                number += 1;
                match parse_backend(&message.attributes, service.id) {
                    Ok(backend) => service.backends.push(backend),
                    Err(reason) => log.push(number, hex(&message.attributes).as_bytes(), reason),
                }
            }
            backends.broken.into_iter().for_each(|reason| log.push(number, b"", reason));
        }
        table.unreadable = log.finish();
        Ok((table, interrupted))
    }

    fn backends(&mut self, family: u16, id: ServiceId) -> Result<Dump, NetlinkError> {
        self.dump(family, GET_DEST, backends_of(id), "reading the backends of a service")
    }

    fn dump(
        &mut self,
        family: u16,
        command: u8,
        attributes: Vec<u8>,
        operation: &'static str,
    ) -> Result<Dump, NetlinkError> {
        let request = Raw { command, version: 1, attributes };
        self.ask(family, request, NLM_F_REQUEST | NLM_F_DUMP)
            .map_err(|error| NetlinkError::new(operation, error))
    }

    /// Sends one request and collects what answers it: until the end of the dump, or one message without one.
    fn ask(&mut self, family: u16, request: Raw, flags: u16) -> io::Result<Dump> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut payload = GenlMessage::from_payload(request);
        payload.set_resolved_family_id(family);
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(payload));
        message.finalize();
        let mut out = vec![0; message.buffer_len()];
        message.serialize(&mut out);
        self.socket.send(&out, 0)?;

        let mut dump = Dump { messages: Vec::new(), interrupted: false, broken: Vec::new() };
        let mut buffer: Vec<u8> = Vec::with_capacity(RECEIVE_BYTES);
        loop {
            buffer.clear();
            match self.socket.recv(&mut buffer, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                result => result?,
            };
            let done = collect(&buffer, self.sequence, &mut dump)?;
            if done || (flags & NLM_F_DUMP != NLM_F_DUMP && !dump.messages.is_empty()) {
                return Ok(dump);
            }
        }
    }
}

/// Takes the messages of one datagram that answer request `sequence`; true at the end of the dump.
fn collect(mut datagram: &[u8], sequence: u32, dump: &mut Dump) -> io::Result<bool> {
    while !datagram.is_empty() {
        let message = match NetlinkMessage::<GenlMessage<Raw>>::deserialize(datagram) {
            Ok(message) => message,
            Err(error) => {
                dump.broken.push(format!("the rest of a datagram is no netlink message: {error}"));
                // Without the end of the dump in it the reader would wait for ever.
                return Ok(true);
            }
        };
        let length = usize::try_from(message.header.length).unwrap_or(usize::MAX).max(16);
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        if message.header.sequence_number != sequence {
            continue;
        }
        dump.interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
        match message.payload {
            NetlinkPayload::InnerMessage(inner) => dump.messages.push(inner.payload),
            NetlinkPayload::Done(done) if done.code < 0 => {
                return Err(io::Error::from_raw_os_error(done.code.saturating_neg()));
            }
            NetlinkPayload::Error(error) if error.raw_code() != 0 => return Err(error.to_io()),
            NetlinkPayload::Done(_) | NetlinkPayload::Error(_) => return Ok(true),
            NetlinkPayload::Overrun(_) => return Err(io::Error::from_raw_os_error(libc::ENOBUFS)),
            _ => {}
        }
    }
    Ok(false)
}

/// Reads one datagram as the answers to GET_SERVICE, then as those to GET_DEST: for tests with bytes from anywhere.
pub(crate) fn parse_datagram(datagram: &[u8], sequence: u32) -> io::Result<(usize, usize)> {
    let mut dump = Dump { messages: Vec::new(), interrupted: false, broken: Vec::new() };
    collect(datagram, sequence, &mut dump)?;
    let mark = ServiceId::Mark { mark: 1, ipv6: false };
    let readable =
        |raw: &&Raw| parse_service(&raw.attributes).is_ok() || parse_backend(&raw.attributes, mark).is_ok();
    Ok((dump.messages.len(), dump.messages.iter().filter(readable).count()))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().take(100).fold(String::new(), |mut out, byte| {
        // Writing to a String cannot fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_controller_knows_itself_and_no_invented_family() {
        let mut connection = Connection::open().unwrap();
        assert_eq!(connection.family("nlctrl").unwrap(), CONTROLLER);
        let error = connection.family("no-such-family").unwrap_err();
        assert!(error.to_string().contains("not loaded"), "{error}");
        // The socket still answers after an error.
        assert_eq!(connection.family("nlctrl").unwrap(), CONTROLLER);
    }

    #[test]
    fn errors_name_the_fix() {
        let error = NetlinkError::new("reading the services", io::Error::from_raw_os_error(libc::EPERM));
        assert_eq!(
            error.to_string(),
            "reading the services by netlink: not permitted, needs CAP_NET_ADMIN in the initial user namespace"
        );
    }
}
