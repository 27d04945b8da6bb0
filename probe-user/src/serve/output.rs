//! Standard output, written on a thread of its own: a reader that has stopped reading holds up nobody. What does not fit
//! into the queue, or cannot be written, is counted.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::snapshot::DeliveryView;

/// Bytes of the lines that wait. Counts of a thousand repeats may come at once, and are a third of it.
const MAX_WAITING: usize = 2 << 20;

/// Standard output at work.
pub(super) struct Output {
    queue: Option<mpsc::Sender<Vec<u8>>>,
    account: Account,
    ended: oneshot::Receiver<()>,
}

impl Output {
    /// Starts the thread, with the privileges of the calling one. `say`: for people.
    pub(super) fn start(out: impl Write + Send + 'static, say: fn(&str)) -> io::Result<Self> {
        let account = Account { state: Arc::default(), say };
        let (queue, lines) = mpsc::channel();
        let (end, ended) = oneshot::channel();
        let writer = Writer { out, lines, account: account.clone() };
        thread::Builder::new().name("stdout".into()).spawn(move || {
            writer.write();
            // Nobody may wait any more.
            let _ = end.send(());
        })?;
        Ok(Self { queue: Some(queue), account, ended })
    }

    /// Hands over one line. Never waits.
    pub(super) fn write(&self, write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) {
        let mut line = Vec::new();
        if let Err(error) = write(&mut line) {
            return self.account.failed(0, &error);
        }
        let length = line.len();
        if !self.account.takes(length) {
            return;
        }
        if self.queue.as_ref().is_none_or(|queue| queue.send(line).is_err()) {
            self.account.failed(length, &io::ErrorKind::BrokenPipe.into());
        }
    }

    /// How it goes.
    pub(super) fn view(&self) -> DeliveryView {
        self.account.with(|state| state.view.clone())
    }

    /// Takes no more lines.
    pub(super) fn close(&mut self) {
        self.queue = None;
    }

    /// Waits until everything is written; what is not by then is given up, and counted. To be closed before.
    pub(super) async fn finish(&mut self, deadline: Instant) {
        let _ = timeout_at(deadline, &mut self.ended).await;
        self.account.with(|state| state.view.dropped += std::mem::take(&mut state.lines));
    }
}

/// The thread's part.
struct Writer<W> {
    out: W,
    lines: mpsc::Receiver<Vec<u8>>,
    account: Account,
}

impl<W: Write> Writer<W> {
    /// One line at a time, at once: whoever reads wants to know now. A reader that has gone may come back, where standard
    /// output is a named pipe, and a full disk gets room again.
    fn write(mut self) {
        for line in self.lines {
            match self.out.write_all(&line).and_then(|()| self.out.flush()) {
                Ok(()) => self.account.written(line.len()),
                Err(error) => self.account.failed(line.len(), &error),
            }
        }
    }
}

#[derive(Debug, Default)]
struct State {
    view: DeliveryView,
    /// Lines that were taken and have neither been written nor given up.
    lines: u64,
    /// Their bytes.
    bytes: usize,
}

impl State {
    fn done(&mut self, length: usize) {
        self.lines = self.lines.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(length);
    }
}

/// What is counted, by both threads.
#[derive(Clone)]
struct Account {
    state: Arc<Mutex<State>>,
    say: fn(&str),
}

impl Account {
    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        // Whoever panicked left whole numbers behind.
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether there is room for a line of so many bytes; else it is counted as dropped.
    fn takes(&self, length: usize) -> bool {
        let has_room = self.with(|state| {
            let has_room = state.lines == 0 || state.bytes.saturating_add(length) <= MAX_WAITING;
            if has_room {
                state.lines += 1;
                state.bytes = state.bytes.saturating_add(length);
            } else {
                state.view.dropped += 1;
            }
            has_room
        });
        if !has_room {
            self.in_trouble("nobody reads it, and there is no room for more lines");
        }
        has_room
    }

    /// The trouble is over once nothing waits any more: a slow reader is told of once, not again and again.
    fn written(&self, length: usize) {
        self.with(|state| {
            state.done(length);
            state.view.sent += 1;
            if state.lines == 0 {
                state.view.trouble = None;
            }
        });
    }

    fn failed(&self, length: usize, error: &io::Error) {
        self.with(|state| {
            if length > 0 {
                state.done(length);
            }
            state.view.failed += 1;
            state.view.dropped += 1;
        });
        self.in_trouble(&error.to_string());
    }

    fn in_trouble(&self, trouble: &str) {
        let known = self.with(|state| {
            let known = state.view.trouble.as_deref() == Some(trouble);
            state.view.trouble = Some(trouble.to_owned());
            known
        });
        if !known {
            (self.say)(&format!("standard output: {trouble}; what cannot be written there is counted"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    type Tell = mpsc::Sender<io::Result<()>>;
    type Written = Arc<Mutex<Vec<u8>>>;

    /// Writes into a list, each time when it is told to, with what it is told.
    struct Reader {
        told: mpsc::Receiver<io::Result<()>>,
        lines: Written,
    }

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.told.recv().map_err(io::Error::other)??;
            self.lines.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn started() -> (Output, Tell, Written) {
        let (tell, told) = mpsc::channel();
        let lines = Arc::default();
        let reader = Reader { told, lines: Arc::clone(&lines) };
        (Output::start(reader, |_| ()).unwrap(), tell, lines)
    }

    fn far() -> Instant {
        Instant::now() + Duration::from_mins(1)
    }

    #[tokio::test]
    async fn a_reader_that_has_stopped_holds_up_nobody_and_what_has_no_room_is_counted() {
        let (mut output, tell, lines) = started();
        let quarter = |digit: u8| [digit].repeat(MAX_WAITING / 4);
        for digit in *b"123456" {
            output.write(|out| out.write_all(&quarter(digit)));
        }
        let stalled = output.view();
        assert_eq!((stalled.sent, stalled.failed, stalled.dropped), (0, 0, 2));
        assert!(stalled.trouble.unwrap().contains("nobody reads it"));
        for _ in 0..4 {
            tell.send(Ok(())).unwrap();
        }
        output.close();
        output.finish(far()).await;
        assert_eq!(output.view(), DeliveryView { sent: 4, dropped: 2, ..DeliveryView::default() });
        assert!(
            *lines.lock().unwrap() == [quarter(b'1'), quarter(b'2'), quarter(b'3'), quarter(b'4')].concat()
        );
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_counted_and_the_next_line_is_tried() {
        let (mut output, tell, lines) = started();
        for line in ["one\n", "two\n", "three\n"] {
            output.write(|out| out.write_all(line.as_bytes()));
        }
        tell.send(Err(io::ErrorKind::BrokenPipe.into())).unwrap();
        tell.send(Ok(())).unwrap();
        tell.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
        output.close();
        output.finish(far()).await;
        let view = output.view();
        assert_eq!((view.sent, view.failed, view.dropped), (1, 2, 2));
        assert_eq!(view.trouble, Some(io::Error::from(io::ErrorKind::StorageFull).to_string()));
        assert_eq!(*lines.lock().unwrap(), b"two\n");
    }

    #[tokio::test]
    async fn the_end_waits_for_a_stopped_reader_until_the_deadline() {
        let (mut output, tell, _) = started();
        output.write(|out| out.write_all(b"one\n"));
        output.write(|out| out.write_all(b"two\n"));
        output.close();
        output.finish(Instant::now()).await;
        assert_eq!(output.view().dropped, 2);
        drop(tell);
    }
}
