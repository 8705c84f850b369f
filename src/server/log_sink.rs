//! Log lines leave through a bounded ring, and another thread writes them to standard error, which may block. A line
//! that finds the ring full, or its lock taken for too long, is dropped and counted. Logging allocates nothing.

use log::{LevelFilter, Log, Metadata, Record};
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, Once};
use std::thread;

/// Lines that wait to be written.
const LINES_MAX: usize = 1024;

/// Longest line, in bytes; the rest is cut.
const LINE_SIZE: usize = 512;

/// How often the lock is tried. It is held only to copy a line.
const TRIES_MAX: usize = 200;

#[derive(Clone, Copy)]
struct Line {
    bytes: [u8; LINE_SIZE],
    size: usize,
}

impl std::fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let mut room = (LINE_SIZE - self.size).min(text.len());
        while !text.is_char_boundary(room) {
            room -= 1;
        }
        self.bytes[self.size..self.size + room].copy_from_slice(&text.as_bytes()[..room]);
        self.size += room;
        Ok(())
    }
}

struct Ring {
    lines: [Line; LINES_MAX],
    first: usize,
    count: usize,
}

/// The sink; there is one in a process.
struct Sink {
    ring: Mutex<Ring>,
    filled: Condvar,
    dropped: AtomicU64,
}

static SINK: Sink = Sink {
    ring: Mutex::new(Ring {
        lines: [Line {
            bytes: [0; LINE_SIZE],
            size: 0,
        }; LINES_MAX],
        first: 0,
        count: 0,
    }),
    filled: Condvar::new(),
    dropped: AtomicU64::new(0),
};

/// Makes this the process's logger, once; later calls change the level only.
pub fn install(level: LevelFilter) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if log::set_logger(&SINK).is_ok() {
            let name = "viewstone-log".to_owned();
            if thread::Builder::new().name(name).spawn(drain).is_err() {
                eprintln!("no thread writes the log: log lines are lost");
            }
        }
    });
    log::set_max_level(level);
}

/// Writes out what waits, on the calling thread: for the last lines of a process.
pub fn flush() {
    while let Some(line) = SINK.pop() {
        let _ = std::io::stderr().write_all(&line.bytes[..line.size]);
    }
}

impl Sink {
    fn push(&self, line: &Line) {
        for _ in 0..TRIES_MAX {
            if let Ok(mut ring) = self.ring.try_lock() {
                if ring.count == LINES_MAX {
                    break;
                }
                let index = (ring.first + ring.count) % LINES_MAX;
                ring.lines[index] = *line;
                ring.count += 1;
                drop(ring);
                self.filled.notify_one();
                return;
            }
            std::hint::spin_loop();
        }
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    fn pop(&self) -> Option<Line> {
        let mut ring = self.ring.lock().ok()?;
        ring.pop()
    }
}

impl Ring {
    fn pop(&mut self) -> Option<Line> {
        if self.count == 0 {
            return None;
        }
        let line = self.lines[self.first];
        self.first = (self.first + 1) % LINES_MAX;
        self.count -= 1;
        Some(line)
    }
}

fn drain() {
    loop {
        let Ok(ring) = SINK.ring.lock() else { return };
        let Ok(mut ring) = SINK.filled.wait_while(ring, |ring| ring.count == 0) else {
            return;
        };
        let line = ring.pop();
        drop(ring);
        if let Some(line) = line {
            let _ = std::io::stderr().write_all(&line.bytes[..line.size]);
        }
        let dropped = SINK.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let _ = writeln!(std::io::stderr(), "{dropped} log lines were dropped");
        }
    }
}

fn format_line(record: &Record<'_>) -> Line {
    let mut line = Line {
        bytes: [0; LINE_SIZE],
        size: 0,
    };
    // Writing into a line never fails: it cuts.
    let _ = write!(line, "{:<5} {}", record.level(), record.args());
    line.size = line.size.min(LINE_SIZE - 1);
    line.bytes[line.size] = b'\n';
    line.size += 1;
    line
}

impl Log for Sink {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.push(&format_line(record));
        }
    }

    fn flush(&self) {
        flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line_of(text: &str) -> Line {
        let level = log::Level::Warn;
        format_line(
            &Record::builder()
                .level(level)
                .args(format_args!("{text}"))
                .build(),
        )
    }

    #[test]
    fn a_long_line_is_cut_at_a_character() {
        let line = line_of(&"é".repeat(LINE_SIZE));
        assert_eq!(line.bytes[line.size - 1], b'\n');
        assert!(
            std::str::from_utf8(&line.bytes[..line.size - 2]).is_ok() && line.size <= LINE_SIZE
        );
        let line = line_of("short");
        assert_eq!(&line.bytes[..line.size], b"WARN  short\n");
    }

    #[test]
    #[allow(clippy::large_stack_arrays)] // as large as the sink that is a static in production
    fn a_full_ring_drops_and_counts() {
        let sink = Box::new(Sink {
            ring: Mutex::new(Ring {
                lines: [line_of(""); LINES_MAX],
                first: 7,
                count: 0,
            }),
            filled: Condvar::new(),
            dropped: AtomicU64::new(0),
        });
        for _ in 0..LINES_MAX + 3 {
            sink.push(&line_of("x"));
        }
        assert_eq!(sink.dropped.load(Ordering::Relaxed), 3);
        let mut count = 0;
        while sink.pop().is_some() {
            count += 1;
        }
        assert_eq!(count, LINES_MAX);
    }
}
