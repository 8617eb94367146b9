//! Nodes that lend each other parts, in simulated time, over a network that loses, delays, repeats and reorders.
//!
//! Each node has a clock of its own, of another origin and up to a hundredth too fast or too slow. An agent may
//! die at any time; what its kernel goes by stays. The sum of what all kernels let through is looked at after each event,
//! and after each end of a loan.

mod world;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use slice_agent::lending::ledger::{ASK_INTERVAL_NS, Answer, Ledger, Question};
use slice_common::shaper::Loan;
pub(crate) use world::{Dice, Fault, World};

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const SECOND: u64 = 1_000 * MS;
const WHOLE: u64 = Loan::WHOLE as u64;
const OWN_BPS: u64 = 20_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Tick(usize),
    Restart(usize),
    /// The end of a loan in some kernel.
    Look,
    Message(usize),
}

#[derive(Clone, Copy, Debug)]
enum Content {
    Question { asked_ns: u64, question: Question },
    Answer { asked_ns: u64, answer: Answer },
}

#[derive(Clone, Copy, Debug)]
struct Message {
    from: usize,
    to: usize,
    /// Of the agent that asks: an answer to an earlier one does not reach it.
    life: u64,
    content: Content,
}

#[derive(Debug)]
struct Node {
    origin_ns: u64,
    /// Its clock's speed, in thousandths.
    speed: u64,
    agent: Option<Ledger<usize>>,
    life: u64,
    kernel: Loan,
    /// What its senders want, in parts.
    demand: u64,
    /// Parts times nanoseconds, since the last tick.
    sent: u128,
    measured_ns: u64,
    /// The greatest number of each node's answers.
    newest: Vec<u64>,
}

impl Node {
    fn clock(&self, now_ns: u64) -> u64 {
        self.origin_ns + now_ns / 1000 * self.speed
    }

    /// The first moment at which its clock shows this.
    fn moment(&self, clock_ns: u64) -> u64 {
        (clock_ns.saturating_sub(self.origin_ns) / self.speed + 1) * 1000
    }

    fn allowed(&self, now_ns: u64) -> u64 {
        match self.clock(now_ns) < self.kernel.until_ns {
            true => WHOLE * WHOLE / u64::from(self.kernel.byte_parts),
            false => WHOLE,
        }
    }
}

pub(crate) struct Simulation {
    pub(crate) now_ns: u64,
    world: World,
    dice: Dice,
    nodes: Vec<Node>,
    messages: Vec<Message>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    count: u64,
    /// The most that all nodes together were allowed, as parts.
    pub(crate) most: u64,
    /// The most that one was.
    pub(crate) most_of_one: u64,
}

impl Simulation {
    pub(crate) fn new(world: World, seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let nodes = (0..world.nodes).map(|_| Node {
            origin_ns: SECOND * (10 + dice.roll(1_000_000)),
            speed: 990 + dice.roll(21),
            agent: None,
            life: 0,
            kernel: Loan::NONE,
            demand: 0,
            sent: 0,
            measured_ns: 0,
            newest: vec![0; world.nodes],
        });
        let nodes = nodes.collect();
        let mut simulation = Self {
            now_ns: 0,
            world,
            dice,
            nodes,
            messages: Vec::new(),
            events: BinaryHeap::new(),
            count: 0,
            most: 0,
            most_of_one: 0,
        };
        for node in 0..world.nodes {
            let at_ns = simulation.dice.roll(SECOND);
            simulation.at(at_ns, Event::Restart(node));
        }
        simulation
    }

    pub(crate) fn demand(&mut self, node: usize, parts_of_own: f64) {
        self.nodes[node].demand = (parts_of_own * WHOLE as f64) as u64;
    }

    /// What a node may send now, as a part of its own.
    pub(crate) fn allowed(&self, node: usize) -> f64 {
        self.nodes[node].allowed(self.now_ns) as f64 / WHOLE as f64
    }

    /// No agent comes back.
    pub(crate) fn kill(&mut self, node: usize) {
        self.nodes[node].agent = None;
    }

    pub(crate) fn run_for(&mut self, ns: u64) {
        let end_ns = self.now_ns + ns;
        while let Some(Reverse((at_ns, _, event))) = self.events.peek().copied() {
            if at_ns > end_ns {
                break;
            }
            self.events.pop();
            self.pass(at_ns);
            match event {
                Event::Tick(node) => self.tick(node),
                Event::Restart(node) => self.restart(node),
                Event::Message(number) => self.deliver(self.messages[number]),
                Event::Look => {}
            }
            self.look();
        }
        self.pass(end_ns);
    }

    fn at(&mut self, at_ns: u64, event: Event) {
        self.count += 1;
        self.events.push(Reverse((at_ns, self.count, event)));
    }

    /// Everybody sends until then. What a kernel goes by changes at events only.
    fn pass(&mut self, until_ns: u64) {
        for node in &mut self.nodes {
            let rate = node.demand.min(node.allowed(self.now_ns));
            node.sent += u128::from(rate) * u128::from(until_ns - self.now_ns);
        }
        self.now_ns = until_ns;
    }

    fn look(&mut self) {
        let allowed = self.nodes.iter().map(|node| node.allowed(self.now_ns));
        let allowed: Vec<u64> = allowed.collect();
        self.most = self.most.max(allowed.iter().sum());
        self.most_of_one = self.most_of_one.max(*allowed.iter().max().expect("nodes"));
    }

    fn restart(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let known = match self.world.fault {
            Fault::ForgetsWhatIsLent => Loan::NONE,
            _ => node.kernel,
        };
        node.agent = Some(Ledger::new(known, node.clock(self.now_ns)));
        node.life += 1;
        (node.sent, node.measured_ns) = (0, self.now_ns);
        let next_ns = self.now_ns + ASK_INTERVAL_NS;
        self.at(next_ns, Event::Tick(at));
    }

    /// Looks, measures and asks.
    fn tick(&mut self, at: usize) {
        if self.nodes[at].agent.is_none() {
            return;
        }
        if self.dice.hits(self.world.dies_percent) {
            self.nodes[at].agent = None;
            let back_ns = self.now_ns + self.dice.roll(6 * SECOND);
            return self.at(back_ns, Event::Restart(at));
        }
        if self.world.demand_changes && self.dice.hits(20) {
            self.nodes[at].demand =
                [0, WHOLE / 4, WHOLE * 4 / 5, 10 * WHOLE][self.dice.roll(4) as usize];
        }
        let node = &mut self.nodes[at];
        let span_ns = u128::from(self.now_ns - node.measured_ns).max(1);
        let sent_parts = u32::try_from(node.sent / span_ns).expect("parts");
        (node.sent, node.measured_ns) = (0, self.now_ns);
        self.change(at, |ledger, now_ns| ledger.measure(sent_parts, now_ns));
        let next_ns = self.now_ns + ASK_INTERVAL_NS;
        self.at(next_ns, Event::Tick(at));
        for partner in (0..self.world.nodes).filter(|it| *it != at) {
            self.ask(at, partner);
        }
    }

    /// Changes a ledger, and the kernel with it.
    fn change<T>(
        &mut self,
        at: usize,
        change: impl FnOnce(&mut Ledger<usize>, u64) -> T,
    ) -> Option<T> {
        let is_refused = self.dice.hits(self.world.refuses_percent);
        let node = &mut self.nodes[at];
        let clock_ns = node.clock(self.now_ns);
        let kernel = &mut node.kernel;
        let write = |loan: Loan| match is_refused {
            true => Err(()),
            false => {
                *kernel = loan;
                Ok(())
            }
        };
        let changed = node
            .agent
            .as_mut()?
            .change(clock_ns, write, |ledger| change(ledger, clock_ns));
        let until_ns = node.moment(node.kernel.until_ns);
        if until_ns > self.now_ns {
            self.at(until_ns, Event::Look);
        }
        changed.ok()
    }

    fn ask(&mut self, from: usize, to: usize) {
        let node = &self.nodes[from];
        let Some(ledger) = &node.agent else { return };
        let asked_ns = node.clock(self.now_ns);
        let mut question = ledger.question(&to, OWN_BPS, asked_ns);
        match self.world.fault {
            Fault::TakesAnswersForGiven => question.holds += 1,
            Fault::GoesByOldAnswers => question.holds = node.newest[to],
            _ => {}
        }
        let content = Content::Question { asked_ns, question };
        self.send(Message {
            from,
            to,
            life: node.life,
            content,
        });
    }

    fn send(&mut self, message: Message) {
        let copies = match () {
            () if self.dice.hits(self.world.lost_percent) => 0,
            () if self.dice.hits(self.world.twice_percent) => 2,
            () => 1,
        };
        for _ in 0..copies {
            // Most come soon.
            let most_ns = match self.dice.hits(70) {
                true => self.world.delay_ns_max.min(20 * MS),
                false => self.world.delay_ns_max,
            };
            let at_ns = self.now_ns + self.dice.roll(most_ns);
            self.messages.push(message);
            self.at(at_ns, Event::Message(self.messages.len() - 1));
        }
    }

    fn deliver(&mut self, message: Message) {
        let Message {
            from,
            to,
            life,
            content,
        } = message;
        match content {
            Content::Question { asked_ns, question } => {
                let Some(answer) = self.answer(to, from, question) else {
                    return;
                };
                let content = Content::Answer { asked_ns, answer };
                self.send(Message {
                    from: to,
                    to: from,
                    life,
                    content,
                });
            }
            Content::Answer { .. } if self.nodes[to].life != life => {}
            Content::Answer { asked_ns, answer } => self.take(to, from, asked_ns, answer),
        }
    }

    fn answer(&mut self, lender: usize, partner: usize, question: Question) -> Option<Answer> {
        if self.world.fault != Fault::AnswersFirst {
            return self.change(lender, |ledger, now_ns| {
                ledger.lend(&partner, question, OWN_BPS, now_ns)
            });
        }
        let node = &mut self.nodes[lender];
        let clock_ns = node.clock(self.now_ns);
        Some(
            node.agent
                .as_mut()?
                .lend(&partner, question, OWN_BPS, clock_ns),
        )
    }

    fn take(&mut self, at: usize, partner: usize, asked_ns: u64, mut answer: Answer) {
        let fault = self.world.fault;
        if fault == Fault::GoesByOldAnswers {
            let newest = &mut self.nodes[at].newest[partner];
            *newest = answer.number.max(*newest);
            self.count += 1;
            answer.number = u64::MAX / 2 + self.count;
        }
        let is_less = self.change(at, |ledger, now_ns| {
            let from_ns = match fault {
                Fault::CountsFromTheAnswer => now_ns,
                _ => asked_ns,
            };
            ledger.take(&partner, answer, from_ns, now_ns)
        });
        if is_less == Some(true) {
            self.ask(at, partner);
        }
    }
}
