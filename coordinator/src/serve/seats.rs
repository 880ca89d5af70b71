//! Who is connected, and who of them may be asked to leave: the idle ones, longest idle first.
//!
//! It closes nothing itself: a connection hears that it is shed and ends. Invariants: at most as
//! many seats are taken as there are; a busy seat is not in the list of the idle ones.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// All seats.
pub(super) struct Seats {
    free: Arc<Semaphore>,
    count: usize,
    everybody: CancellationToken,
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    next: u64,
    /// By when they became idle.
    seats: BTreeMap<u64, CancellationToken>,
}

/// One connection's seat.
pub(super) struct Seat {
    seats: Arc<Seats>,
    shed: CancellationToken,
    /// Its place among the idle; none while it is busy.
    place: Mutex<Option<u64>>,
    was_busy: AtomicBool,
    _permit: OwnedSemaphorePermit,
}

/// Every change under these locks is one step, so a panic elsewhere leaves them whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seats {
    pub(super) fn new(count: usize) -> Arc<Self> {
        Arc::new(Self {
            free: Arc::new(Semaphore::new(count)),
            count,
            everybody: CancellationToken::new(),
            idle: Mutex::default(),
        })
    }

    pub(super) fn take(self: &Arc<Self>) -> Option<Seat> {
        let permit = Arc::clone(&self.free).try_acquire_owned().ok()?;
        let seat = Seat {
            seats: Arc::clone(self),
            shed: self.everybody.child_token(),
            place: Mutex::new(None),
            was_busy: AtomicBool::new(false),
            _permit: permit,
        };
        seat.sit();
        Some(seat)
    }

    /// Asks the one that has been idle for longest to leave.
    pub(super) fn shed_oldest(&self) {
        if let Some((_, shed)) = lock(&self.idle).seats.pop_first() {
            shed.cancel();
        }
    }

    /// Asks all to leave once they are idle.
    pub(super) fn shed_all(&self) {
        self.everybody.cancel();
    }

    /// Waits until a seat is free. It may be taken by now.
    pub(super) async fn freed(&self) {
        // It is never closed.
        let _ = self.free.acquire().await;
    }

    /// Waits until all seats are free.
    pub(super) async fn all_free(&self) {
        let all = u32::try_from(self.count).unwrap_or(u32::MAX);
        // It is never closed.
        let _ = self.free.acquire_many(all).await;
    }
}

impl Seat {
    fn sit(&self) {
        let mut place = lock(&self.place);
        let mut idle = lock(&self.seats.idle);
        let number = idle.next;
        idle.next += 1;
        idle.seats.insert(number, self.shed.clone());
        *place = Some(number);
    }

    fn rise(&self) {
        let mut place = lock(&self.place);
        if let Some(number) = place.take() {
            lock(&self.seats.idle).seats.remove(&number);
        }
    }

    /// Waits until this connection is asked to leave.
    pub(super) async fn shed(&self) {
        self.shed.cancelled().await;
    }

    pub(super) fn is_busy(&self) -> bool {
        lock(&self.place).is_none()
    }

    /// Whether it ever had a request.
    pub(super) fn was_busy(&self) -> bool {
        self.was_busy.load(Ordering::Relaxed)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.rise();
    }
}

/// A request that is being answered.
pub(super) struct Busy(Arc<Seat>);

impl Busy {
    pub(super) fn new(seat: Arc<Seat>) -> Self {
        seat.was_busy.store(true, Ordering::Relaxed);
        seat.rise();
        Self(seat)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.sit();
    }
}

/// A body whose connection is busy until it is dropped.
pub(super) struct Held {
    body: Body,
    _busy: Busy,
}

impl Held {
    pub(super) fn new(body: Body, busy: Busy) -> Self {
        Self { body, _busy: busy }
    }
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
