//! Who sends: TCP with its window, datagrams that react to nothing, answers to requests.

use super::plant::{FRAME, MS, SECOND, START};

/// Sends as much as its window and the socket's share of the queue allow, on and off.
#[derive(Clone, Debug)]
pub(crate) struct Tcp {
    window: f64,
    threshold: f64,
    in_flight: u64,
    /// Not yet on the link.
    pub(crate) queued: u64,
    reduced_until_ns: u64,
    rtt_ns: u64,
    /// The largest packet in segments.
    gso_frames: u64,
    /// Understands marks (ECN); else only drops slow it down.
    pub(crate) heeds_marks: bool,
    /// How long it sends and then does not; no pause: always.
    pub(crate) on_ns: u64,
    pub(crate) off_ns: u64,
}

impl Tcp {
    /// What a reduction leaves of the window (RFC 9438).
    const REDUCTION: f64 = 0.7;

    pub(crate) fn new(rtt_ns: u64) -> Self {
        Self {
            window: (10 * FRAME) as f64,
            threshold: f64::MAX,
            in_flight: 0,
            queued: 0,
            reduced_until_ns: 0,
            rtt_ns,
            gso_frames: 10,
            heeds_marks: true,
            on_ns: SECOND,
            off_ns: 0,
        }
    }

    pub(crate) fn on_off(self, on_ms: u64, off_ms: u64) -> Self {
        Self {
            on_ns: on_ms * MS,
            off_ns: off_ms * MS,
            ..self
        }
    }

    pub(crate) fn by_drops_only(self) -> Self {
        Self {
            heeds_marks: false,
            ..self
        }
    }

    /// A millisecond at the present rate, as the kernel sizes its packets.
    fn packet_frames(&self) -> u64 {
        let per_ms = self.window * MS as f64 / self.rtt_ns as f64 / FRAME as f64;
        (per_ms as u64).clamp(1, self.gso_frames)
    }

    pub(crate) fn is_on(&self, now_ns: u64) -> bool {
        (now_ns - START) % (self.on_ns + self.off_ns) < self.on_ns
    }

    /// Bytes of the next packet, if it may be sent now. At most two packets of a socket wait (TSQ).
    pub(crate) fn next(&self, now_ns: u64) -> Option<u64> {
        let bytes = self.packet_frames() * FRAME;
        let fits = (self.in_flight + bytes) as f64 <= self.window || self.in_flight == 0;
        (self.is_on(now_ns) && fits && self.queued <= bytes).then_some(bytes)
    }

    pub(crate) fn sent(&mut self, bytes: u64) {
        self.in_flight += bytes;
    }

    pub(crate) fn acknowledged(&mut self, now_ns: u64, bytes: u64, is_marked: bool) {
        self.in_flight -= bytes;
        if is_marked && self.heeds_marks {
            self.reduce(now_ns);
        } else if self.window < self.threshold {
            self.window += bytes as f64;
        } else {
            self.window += FRAME as f64 * bytes as f64 / self.window;
        }
    }

    pub(crate) fn lost(&mut self, now_ns: u64, bytes: u64) {
        self.in_flight -= bytes;
        self.reduce(now_ns);
    }

    fn reduce(&mut self, now_ns: u64) {
        if now_ns < self.reduced_until_ns {
            return;
        }
        self.window = (self.window * Self::REDUCTION).max(2.0 * FRAME as f64);
        self.threshold = self.window;
        // What is on its way now was sent before the reduction.
        self.reduced_until_ns = now_ns + self.rtt_ns + 10 * MS;
    }
}

/// Sends a burst of packets every interval, whatever comes of them: answers to requests, heartbeats,
/// floods.
#[derive(Clone, Debug)]
pub(crate) struct Ticks {
    pub(crate) interval_ns: u64,
    /// Of the first burst, after the start.
    pub(crate) phase_ns: u64,
    pub(crate) packets: u64,
    pub(crate) packet_bytes: u64,
}

impl Ticks {
    /// At this rate, in packets of one frame, one by one.
    pub(crate) fn steady(bps: u64, phase_ns: u64) -> Self {
        Self {
            interval_ns: FRAME * 8 * SECOND / bps,
            phase_ns,
            packets: 1,
            packet_bytes: FRAME,
        }
    }

    /// At this rate, as one answer of full frames every `interval_ms`.
    pub(crate) fn answers(bps: u64, interval_ms: u64, phase_ns: u64) -> Self {
        Self {
            interval_ns: interval_ms * MS,
            phase_ns,
            packets: bps * interval_ms / 8000 / FRAME,
            packet_bytes: FRAME,
        }
    }

    /// A request of 256 bytes every ten milliseconds.
    pub(crate) fn requests(phase_ns: u64) -> Self {
        Self {
            interval_ns: 10 * MS,
            phase_ns,
            packets: 1,
            packet_bytes: 384,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Sender {
    Tcp(Tcp),
    Ticks(Ticks),
}
