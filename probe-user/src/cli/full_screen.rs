//! The terminal while a full-screen view has it. It is given back however the view ends: leave, error, panic, signal.

use std::io::{self, Stdout, Write, stdout};
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};

use super::output::complain;

/// Set while a view has the terminal: a line in between would stay in it.
static TAKEN: AtomicBool = AtomicBool::new(false);
/// What other threads that panicked had to say meanwhile.
static HELD_BACK: Mutex<Vec<String>> = Mutex::new(Vec::new());
/// Messages that are held back at most.
const MAX_HELD_BACK: usize = 8;

/// Whether a view has the terminal.
pub(super) fn is_taken() -> bool {
    TAKEN.load(Ordering::Relaxed)
}

/// The terminal, until this is dropped.
pub(super) struct FullScreen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    _taken: Taken,
}

impl FullScreen {
    /// Takes the terminal over: raw mode, the other screen. Call it once in a process, on the thread that draws.
    pub(super) fn take() -> io::Result<Self> {
        let taken = Taken::begin();
        enable_raw_mode()?;
        execute!(stdout(), EnterAlternateScreen)?;
        let terminal = Terminal::new(CrosstermBackend::new(stdout()))?;
        Ok(Self { terminal, _taken: taken })
    }

    /// What to draw on.
    pub(super) const fn terminal(&mut self) -> &mut Terminal<CrosstermBackend<Stdout>> {
        &mut self.terminal
    }
}

/// Gives the terminal back when it is dropped, also where a taking fails halfway.
struct Taken;

impl Taken {
    fn begin() -> Self {
        TAKEN.store(true, Ordering::Relaxed);
        let owner = thread::current().id();
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if thread::current().id() == owner || !is_taken() {
                // The message comes after the view, not into it.
                give_back();
                report(info);
            } else {
                // The view goes on without that thread.
                let thread = thread::current();
                hold_back(format!("thread {:?} {info}", thread.name().unwrap_or("without name")));
            }
        }));
        Self
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        give_back();
    }
}

fn hold_back(message: String) {
    let mut messages = HELD_BACK.lock().unwrap_or_else(PoisonError::into_inner);
    if messages.len() < MAX_HELD_BACK {
        messages.push(message);
    }
}

/// Leaves the view: raw mode off, the former screen, the cursor. Does nothing if no view has the terminal. What cannot
/// be written to a terminal that has gone is lost.
pub(super) fn give_back() {
    if !TAKEN.swap(false, Ordering::Relaxed) {
        return;
    }
    let _ = disable_raw_mode();
    let _ = execute!(stdout(), LeaveAlternateScreen, Show);
    let _ = stdout().flush();
    let messages = std::mem::take(&mut *HELD_BACK.lock().unwrap_or_else(PoisonError::into_inner));
    for message in &messages {
        complain(message);
    }
}

#[cfg(test)]
#[path = "full_screen_tests.rs"]
mod tests;
