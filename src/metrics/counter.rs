//! The numbers themselves: counters of 64 bits on every CPU, and gauges.

use std::sync::atomic::{AtomicU32, Ordering};

#[cfg(not(target_has_atomic = "64"))]
pub use locked::Counter;
#[cfg(target_has_atomic = "64")]
pub use wide::Counter;

/// Goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU32);

impl Gauge {
    /// One more.
    pub fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One less.
    pub fn decrement(&self) {
        let before = self.0.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "something was closed that was never opened");
    }

    /// How many there are.
    pub fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(target_has_atomic = "64")]
mod wide {
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Only goes up.
    #[derive(Debug, Default)]
    pub struct Counter(AtomicU64);

    impl Counter {
        /// Adds `n`.
        pub fn add(&self, n: u64) {
            self.0.fetch_add(n, Ordering::Relaxed);
        }

        /// The sum so far.
        pub fn get(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }
    }
}

/// For CPUs without 64-bit atomics (32-bit MIPS, ARMv5). A lock rather than two halves with a carry: between the halves
/// a scrape could see a counter go backwards, which Prometheus takes for a restart. Uncontended it costs two atomics.
#[cfg(any(test, not(target_has_atomic = "64")))]
#[cfg_attr(target_has_atomic = "64", allow(unreachable_pub))]
mod locked {
    use std::sync::{Mutex, MutexGuard, PoisonError};

    /// Only goes up.
    #[derive(Debug, Default)]
    pub struct Counter(Mutex<u64>);

    impl Counter {
        /// Adds `n`.
        pub fn add(&self, n: u64) {
            let mut sum = self.lock();
            *sum = sum.wrapping_add(n);
        }

        /// The sum so far.
        pub fn get(&self) -> u64 {
            *self.lock()
        }

        fn lock(&self) -> MutexGuard<'_, u64> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds from several threads across the edge of 32 bits.
    macro_rules! check {
        ($counter:ty) => {{
            let counter = <$counter>::default();
            counter.add(u64::from(u32::MAX) - 1000);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| (0..1000).for_each(|_| counter.add(3)));
                }
            });
            assert_eq!(counter.get(), u64::from(u32::MAX) + 11_000);
        }};
    }

    #[test]
    fn nothing_is_lost_at_32_bits() {
        check!(Counter);
        check!(locked::Counter);
    }

    #[test]
    fn a_gauge_goes_up_and_down() {
        let gauge = Gauge::default();
        gauge.increment();
        gauge.increment();
        gauge.decrement();
        assert_eq!(gauge.get(), 1);
    }
}
