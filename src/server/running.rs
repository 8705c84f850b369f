//! A server on a thread of its own, and how it is told to stop.

use super::ServerError;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Tells a server to stop. Clones mean the same server.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    told: Arc<AtomicBool>,
    killed: Arc<AtomicBool>,
}

impl Stop {
    /// Tells it.
    pub fn stop(&self) {
        self.told.store(true, Ordering::Release);
    }

    /// Tells it to stop as if it had crashed: the other replicas are not told, and must find out.
    pub fn kill(&self) {
        self.killed.store(true, Ordering::Relaxed);
        self.stop();
    }

    /// Whether it was told.
    pub fn is_stopped(&self) -> bool {
        self.told.load(Ordering::Acquire)
    }

    /// Whether nobody is to be told of it.
    pub fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Relaxed)
    }

    /// SIGTERM and SIGINT tell it, too.
    ///
    /// # Errors
    /// The operating system's.
    pub fn on_signals(&self) -> std::io::Result<()> {
        for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
            signal_hook::flag::register(signal, Arc::clone(&self.told))?;
        }
        Ok(())
    }
}

/// A server on a thread of its own.
#[derive(Debug)]
pub struct Running {
    /// Tells it to stop.
    pub stop: Stop,
    thread: std::thread::JoinHandle<Result<(), ServerError>>,
}

impl Running {
    /// Starts `run` on a new thread. It makes its server there, since a server does not move between threads.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub fn spawn(
        name: String,
        run: impl FnOnce(&Stop) -> Result<(), ServerError> + Send + 'static,
    ) -> std::io::Result<Self> {
        let stop = Stop::default();
        let told = stop.clone();
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(move || run(&told))?;
        Ok(Self { stop, thread })
    }

    /// Whether it has ended by itself.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Tells it to stop and waits for its end.
    ///
    /// # Errors
    /// Why it had ended before, if it had.
    pub fn stop(self) -> Result<(), ServerError> {
        self.stop.stop();
        self.thread.join().unwrap_or(Err(ServerError::Panicked))
    }
}
