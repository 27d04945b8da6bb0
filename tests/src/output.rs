//! What a child prints, read by a thread while it comes.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use serde_json::Value;

/// The lines of a stream.
pub struct Output {
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Output {
    /// Reads from now on until the stream ends.
    pub fn of(stream: impl Read + Send + 'static) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let into = lines.clone();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                lock(&into).push(String::from_utf8_lossy(&line).into_owned());
            }
        });
        Self { lines, reader: Some(reader) }
    }

    /// Whether any line is so.
    pub fn any(&self, is: impl Fn(&str) -> bool) -> bool {
        lock(&self.lines).iter().any(|line| is(line))
    }

    /// All lines so far.
    pub fn text(&self) -> String {
        lock(&self.lines).join("\n")
    }

    /// The JSON objects of a schema so far.
    pub fn objects(&self, schema: &str) -> Vec<Value> {
        let lines = lock(&self.lines);
        let values = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        values.filter(|value| value.get("schema").and_then(Value::as_str) == Some(schema)).collect()
    }

    /// Waits until the stream has ended.
    pub fn finish(&mut self) {
        let _ = self.reader.take().map(JoinHandle::join);
    }
}

fn lock(lines: &Mutex<Vec<String>>) -> MutexGuard<'_, Vec<String>> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}
