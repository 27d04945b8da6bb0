//! Tells a service manager how it goes: the protocol of `sd_notify(3)`, one datagram per message.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// A service manager that listens, or none: then nothing is sent.
#[derive(Debug, Default)]
pub struct Notifier {
    manager: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// As `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` say. The socket is made here, before privileges are dropped.
    pub fn from_env() -> io::Result<Self> {
        Self::from_variables(|name| std::env::var_os(name), std::process::id())
    }

    /// The same with other variables and another process id.
    fn from_variables<S: AsRef<OsStr>>(variable: impl Fn(&str) -> Option<S>, own: u32) -> io::Result<Self> {
        let Some(address) = variable("NOTIFY_SOCKET").filter(|name| !name.as_ref().is_empty()) else {
            return Ok(Self::default());
        };
        let address = match address.as_ref().as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(address.as_ref())?,
        };
        let socket = UnixDatagram::unbound()?;
        // A manager that does not read must not stop us.
        socket.set_nonblocking(true)?;
        let number = |name| variable(name).and_then(|text| text.as_ref().to_str()?.parse::<u64>().ok());
        let meant = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(own));
        let watchdog = number("WATCHDOG_USEC").filter(|usec| meant && *usec > 0).map(Duration::from_micros);
        Ok(Self { manager: Some((socket, address)), watchdog })
    }

    /// How often [`Self::watchdog`] is to be called: half of what the manager waits for.
    pub fn watchdog_every(&self) -> Option<Duration> {
        self.watchdog.map(|limit| limit / 2)
    }

    /// Everything is set up.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// The configuration is being read again; [`Self::ready`] ends that.
    pub fn reloading(&self) {
        // The manager compares it with its own clock (Type=notify-reload).
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros()));
    }

    /// It ends.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// One line for people (`systemctl status`).
    pub fn status(&self, text: &str) {
        self.send(&format!("STATUS={}", text.replace(['\n', '\r'], " ")));
    }

    /// It still works.
    pub fn watchdog(&self) {
        self.send("WATCHDOG=1");
    }

    fn send(&self, message: &str) {
        let Some((socket, address)) = &self.manager else { return };
        if let Err(error) = socket.send_to_addr(message.as_bytes(), address) {
            tracing::debug!("tell the service manager: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn notifier(variables: &[(&str, &str)]) -> Notifier {
        let variables: HashMap<_, _> = variables.iter().map(|(name, value)| (*name, *value)).collect();
        Notifier::from_variables(|name| variables.get(name).copied(), 42).unwrap()
    }

    fn heard(socket: &UnixDatagram) -> String {
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut buffer = [0; 256];
        let length = loop {
            match socket.recv(&mut buffer) {
                // A wait with a time limit is not taken up again by the kernel after this process was stopped.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                got => break got.unwrap(),
            }
        };
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_manager_hears_every_word_by_path_and_by_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let abstract_name = format!("portclash-notify-test-{}", std::process::id());
        let named = SocketAddr::from_abstract_name(&abstract_name).unwrap();
        let sockets = [
            (UnixDatagram::bind(&path).unwrap(), path.to_str().unwrap().to_owned()),
            (UnixDatagram::bind_addr(&named).unwrap(), format!("@{abstract_name}")),
        ];
        for (socket, address) in sockets {
            let notifier = notifier(&[("NOTIFY_SOCKET", &address)]);
            notifier.ready();
            assert_eq!(heard(&socket), "READY=1");
            notifier.status("2 incidents\nREADY=1");
            assert_eq!(heard(&socket), "STATUS=2 incidents READY=1");
            notifier.watchdog();
            assert_eq!(heard(&socket), "WATCHDOG=1");
            let before = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap()).as_micros();
            notifier.reloading();
            let text = heard(&socket);
            let usec: u128 = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().parse().unwrap();
            assert!(usec >= before, "{usec} is before {before}");
            notifier.stopping();
            assert_eq!(heard(&socket), "STOPPING=1");
        }
    }

    #[test]
    fn a_manager_that_has_gone_or_does_not_read_stops_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let notifier = notifier(&[("NOTIFY_SOCKET", path.to_str().unwrap())]);
        for _ in 0..1000 {
            notifier.watchdog();
        }
        assert_eq!(heard(&socket), "WATCHDOG=1");
        drop(socket);
        notifier.ready();
    }

    #[test]
    fn without_a_manager_nothing_is_sent_and_the_watchdog_is_for_one_process() {
        assert!(notifier(&[]).manager.is_none());
        assert!(notifier(&[("NOTIFY_SOCKET", "")]).manager.is_none());
        notifier(&[]).ready();
        let every = |pid| {
            let variables = [("NOTIFY_SOCKET", "@x"), ("WATCHDOG_USEC", "3000000"), ("WATCHDOG_PID", pid)];
            notifier(&variables).watchdog_every()
        };
        assert_eq!(every("42"), Some(Duration::from_millis(1500)));
        assert_eq!(every("43"), None);
        assert_eq!(notifier(&[("NOTIFY_SOCKET", "@x"), ("WATCHDOG_USEC", "0")]).watchdog_every(), None);
    }
}
