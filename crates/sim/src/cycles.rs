//! Dependencies between transactions, and the cycles that no serial order has (Adya's names).

use std::collections::VecDeque;

/// Why one transaction comes before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// It wrote what the other replaced.
    Ww,
    /// It wrote what the other read.
    Wr,
    /// It read what the other replaced.
    Rw,
    /// It had returned when the other was begun.
    Time,
}

/// The dependencies.
#[derive(Debug)]
pub struct Graph(Vec<Vec<(Edge, usize)>>);

/// An anomaly: a cycle through an edge of one kind, the way back over edges of others.
struct Anomaly {
    name: &'static str,
    edge: Edge,
    back: &'static [Edge],
}

/// The worst first.
const ANOMALIES: &[Anomaly] = &[
    Anomaly { name: "G0", edge: Edge::Ww, back: &[Edge::Ww] },
    Anomaly { name: "G1c", edge: Edge::Wr, back: &[Edge::Ww, Edge::Wr] },
    Anomaly { name: "G-single", edge: Edge::Rw, back: &[Edge::Ww, Edge::Wr] },
    Anomaly { name: "G2", edge: Edge::Rw, back: &[Edge::Ww, Edge::Wr, Edge::Rw] },
    Anomaly { name: "G0-realtime", edge: Edge::Ww, back: &[Edge::Ww, Edge::Time] },
    Anomaly { name: "G1c-realtime", edge: Edge::Wr, back: &[Edge::Ww, Edge::Wr, Edge::Time] },
    Anomaly { name: "G-single-realtime", edge: Edge::Rw, back: &[Edge::Ww, Edge::Wr, Edge::Time] },
    Anomaly { name: "G2-realtime", edge: Edge::Rw, back: &[Edge::Ww, Edge::Wr, Edge::Rw, Edge::Time] },
];

impl Graph {
    /// Of so many transactions.
    pub fn new(txns: usize) -> Graph {
        Graph(vec![Vec::new(); txns])
    }

    /// One comes before the other. Nobody comes before itself.
    pub fn add(&mut self, from: usize, edge: Edge, to: usize) {
        if from != to {
            self.0[from].push((edge, to));
        }
    }

    /// The worst anomaly: its name and its transactions, each with the edge to the next.
    pub fn cycle(&self) -> Option<(&'static str, Vec<(usize, Edge)>)> {
        if self.is_acyclic() {
            return None;
        }
        ANOMALIES.iter().find_map(|a| Some((a.name, self.find(a)?)))
    }

    /// All transactions can be taken off in order.
    fn is_acyclic(&self) -> bool {
        let mut before = vec![0usize; self.0.len()];
        self.0.iter().flatten().for_each(|(_, to)| before[*to] += 1);
        let mut free: Vec<usize> = (0..before.len()).filter(|n| before[*n] == 0).collect();
        let mut taken = 0;
        while let Some(n) = free.pop() {
            taken += 1;
            for (_, to) in &self.0[n] {
                before[*to] -= 1;
                if before[*to] == 0 {
                    free.push(*to);
                }
            }
        }
        taken == before.len()
    }

    fn find(&self, a: &Anomaly) -> Option<Vec<(usize, Edge)>> {
        let edges = self.0.iter().enumerate().flat_map(|(n, out)| out.iter().map(move |(edge, to)| (n, *edge, *to)));
        edges.filter(|(_, edge, _)| *edge == a.edge).find_map(|(from, edge, to)| {
            let mut cycle = vec![(from, edge)];
            cycle.extend(self.path(to, from, a.back)?);
            Some(cycle)
        })
    }

    /// A shortest way over such edges.
    fn path(&self, from: usize, to: usize, over: &[Edge]) -> Option<Vec<(usize, Edge)>> {
        let mut came: Vec<Option<(usize, Edge)>> = vec![None; self.0.len()];
        let mut next = VecDeque::from([from]);
        while let Some(n) = next.pop_front() {
            for (edge, m) in self.0[n].iter().filter(|(edge, _)| over.contains(edge)) {
                if *m != from && came[*m].is_none() {
                    came[*m] = Some((n, *edge));
                    next.push_back(*m);
                }
            }
        }
        let (mut way, mut at) = (Vec::new(), to);
        while at != from {
            let (n, edge) = came[at]?;
            way.push((n, edge));
            at = n;
        }
        way.reverse();
        Some(way)
    }
}
