//! Placing boxes and the lines between them: in layers, each below what it depends on, in columns if there are many.

/// What is placed.
pub(crate) struct Sizes<'a> {
    /// Width and height of each box.
    pub(crate) boxes: &'a [(f64, f64)],
    /// From one box to another; no box depends on itself.
    pub(crate) edges: &'a [(usize, usize)],
}

/// A picture with its boxes in place.
pub(crate) struct Placed {
    /// The upper left corner of each box.
    pub(crate) corners: Vec<(f64, f64)>,
    pub(crate) lines: Vec<Line>,
    pub(crate) width: f64,
    pub(crate) height: f64,
}

/// How an edge is shown.
pub(crate) enum Line {
    /// Drawn: upper and lower ends of pieces, the first at a box, the last at another.
    Drawn(Vec<(f64, f64)>),
    /// Too long to be followed by the eye: the same number stands at both boxes, one number for all edges from a box.
    Numbered { number: usize, from: usize, to: usize },
}

/// Between boxes of a layer, and between layers.
const GAP: f64 = 28.0;
const FALL: f64 = 42.0;
/// Between columns.
const BETWEEN: f64 = 64.0;
/// Width that a line takes where it passes a layer.
const LANE: f64 = 14.0;
/// A picture that is higher is divided into columns.
const HIGH: f64 = 1500.0;
/// Width to height that columns aim at.
const SHAPE: f64 = 1.5;
/// Layers that a drawn line passes, at most.
const LONGEST: usize = 7;
/// Rounds of putting the boxes of a layer in order and in place.
const ROUNDS: usize = 12;

/// A place in a layer: a box, or a line that passes.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Box(usize),
    /// A line, by the number of its edge.
    Passing(usize),
}

/// The layer of each box: below all that it depends on; what depends on one box or none stands directly above its
/// first user.
fn layers(count: usize, edges: &[(usize, usize)]) -> Vec<usize> {
    let mut next = vec![Vec::new(); count];
    let mut needs = vec![0; count];
    for &(a, b) in edges {
        next[a].push(b);
        needs[b] += 1;
    }
    let (mut layer, mut waits) = (vec![0; count], needs.clone());
    let mut order: Vec<usize> = (0..count).filter(|&b| waits[b] == 0).collect();
    let mut done = 0;
    while let Some(&a) = order.get(done) {
        done += 1;
        for &b in &next[a] {
            layer[b] = layer[b].max(layer[a] + 1);
            waits[b] -= 1;
            if waits[b] == 0 {
                order.push(b);
            }
        }
    }
    for &a in order.iter().rev().filter(|&&a| needs[a] <= 1) {
        if let Some(first) = next[a].iter().map(|&b| layer[b]).min() {
            layer[a] = first - 1;
        }
    }
    layer
}

/// Positions that are as near as possible to those wanted, in this order and at least this far apart: the least sum of
/// squares, by joining neighbours that are in each other's way.
fn apart(wanted: &[f64], distance: impl Fn(usize) -> f64) -> Vec<f64> {
    // With the distances taken off, positions only have to be in order.
    let mut offsets = vec![0.0];
    (1..wanted.len()).for_each(|n| offsets.push(offsets[n - 1] + distance(n - 1)));
    let mut groups: Vec<(f64, usize)> = Vec::new();
    for (w, o) in wanted.iter().zip(&offsets) {
        groups.push((w - o, 1));
        while let [.., (a, n), (b, m)] = groups[..]
            && a > b
        {
            groups.truncate(groups.len() - 2);
            groups.push(((a * n as f64 + b * m as f64) / (n + m) as f64, n + m));
        }
    }
    let flat = groups.into_iter().flat_map(|(v, n)| std::iter::repeat_n(v, n));
    flat.zip(offsets).map(|(v, o)| v + o).collect()
}

/// Where the layers of each column begin.
fn columns(heights: &[f64], widest: f64, layer: &[usize], edges: &[(usize, usize)]) -> Vec<usize> {
    let total: f64 = heights.iter().sum();
    let count = if total <= HIGH { 1 } else { ((SHAPE * total / widest).sqrt().round() as usize).max(1) };
    let high = total / count as f64;
    let crossing = |at: usize| edges.iter().filter(|(a, b)| layer[*a] < at && layer[*b] >= at).count();
    let mut starts = vec![0];
    let mut sum = 0.0;
    let mut n = 0;
    while n < heights.len() {
        sum += heights[n];
        n += 1;
        if sum >= high && starts.len() < count && n < heights.len() {
            // Nearby, where the fewest lines are cut.
            let first = (n.saturating_sub(3)).max(starts[starts.len() - 1] + 1);
            let cut = (first..(n + 3).min(heights.len())).min_by_key(|&at| (crossing(at), at.abs_diff(n))).unwrap_or(n);
            starts.push(cut);
            sum = 0.0;
            n = cut;
        }
    }
    starts
}

/// Places everything.
pub(crate) fn place(sizes: &Sizes<'_>) -> Placed {
    let layer = layers(sizes.boxes.len(), sizes.edges);
    let depth = layer.iter().max().map_or(0, |n| n + 1);
    let mut heights = vec![0.0f64; depth];
    let mut widths = vec![0.0f64; depth];
    for (&l, (w, h)) in layer.iter().zip(sizes.boxes) {
        heights[l] = heights[l].max(*h);
        widths[l] += w + GAP;
    }
    let full: Vec<f64> = heights.iter().map(|h| h + FALL).collect();
    // Few layers are much wider than the others.
    let mut sorted = widths.clone();
    sorted.sort_by(f64::total_cmp);
    let usual = sorted.get(depth * 9 / 10).copied().unwrap_or(1.0) + BETWEEN;
    let starts = columns(&full, usual, &layer, sizes.edges);
    let column_of = |l: usize| starts.iter().rposition(|s| *s <= l).unwrap_or(0);

    let drawn = |&(a, b): &(usize, usize)| column_of(layer[a]) == column_of(layer[b]) && layer[b] - layer[a] <= LONGEST;
    let mut rows: Vec<Vec<Place>> = vec![Vec::new(); depth];
    (0..sizes.boxes.len()).for_each(|b| rows[layer[b]].push(Place::Box(b)));
    for (e, &(a, b)) in sizes.edges.iter().enumerate().filter(|(_, e)| drawn(e)) {
        (layer[a] + 1..layer[b]).for_each(|l| rows[l].push(Place::Passing(e)));
    }
    // The neighbours of each place in the layer above and in the one below.
    let above = |l: usize, p: Place| -> Vec<Place> {
        let step = |e: usize| {
            let from = sizes.edges[e].0;
            if layer[from] + 1 == l { Place::Box(from) } else { Place::Passing(e) }
        };
        match p {
            Place::Passing(e) => vec![step(e)],
            Place::Box(b) => {
                (0..sizes.edges.len()).filter(|&e| sizes.edges[e].1 == b && drawn(&sizes.edges[e])).map(step).collect()
            }
        }
    };
    let mut up: Vec<Vec<Vec<usize>>> = Vec::new();
    let mut down: Vec<Vec<Vec<usize>>> = rows.iter().map(|r| vec![Vec::new(); r.len()]).collect();
    for l in 0..depth {
        let mut of_layer = Vec::new();
        for (n, p) in rows[l].iter().enumerate() {
            let places = above(l, *p).into_iter();
            let found: Vec<usize> =
                places.filter_map(|q| rows[l.checked_sub(1)?].iter().position(|r| *r == q)).collect();
            found.iter().for_each(|&m| down[l - 1][m].push(n));
            of_layer.push(found);
        }
        up.push(of_layer);
    }
    let width = |p: &Place| match p {
        Place::Box(b) => sizes.boxes[*b].0,
        Place::Passing(_) => LANE,
    };

    // `order[l]` has the places of a layer from left to right.
    let mut order: Vec<Vec<usize>> = rows.iter().map(|r| (0..r.len()).collect()).collect();
    let mut best = (usize::MAX, order.clone());
    for round in 0..ROUNDS {
        let ranks = |o: &[usize]| {
            let mut rank = vec![0; o.len()];
            o.iter().enumerate().for_each(|(n, &p)| rank[p] = n);
            rank
        };
        let downwards = round % 2 == 0;
        let sequence: Vec<usize> =
            if downwards { (1..depth).collect() } else { (0..depth.saturating_sub(1)).rev().collect() };
        for l in sequence {
            let (near, rank) =
                if downwards { (&up[l], ranks(&order[l - 1])) } else { (&down[l], ranks(&order[l + 1])) };
            let own = ranks(&order[l]);
            let key = |p: &usize| match near[*p].len() {
                // What has no neighbour stays where it is.
                0 => own[*p] as f64,
                n => near[*p].iter().map(|&q| rank[q] as f64).sum::<f64>() / n as f64,
            };
            order[l].sort_by(|a, b| key(a).total_cmp(&key(b)));
        }
        let crossings = (1..depth).map(|l| crossings(&order[l], &up[l], &ranks(&order[l - 1]))).sum();
        if crossings < best.0 {
            best = (crossings, order.clone());
        }
    }
    let order = best.1;

    // The middle of each place.
    let mut x: Vec<Vec<f64>> = rows.iter().map(|r| vec![0.0; r.len()]).collect();
    for (l, o) in order.iter().enumerate() {
        let mut at = 0.0;
        for &p in o {
            let w = width(&rows[l][p]);
            x[l][p] = at + w / 2.0;
            at += w + GAP;
        }
        o.iter().for_each(|&p| x[l][p] -= at / 2.0);
    }
    for round in 0..2 * ROUNDS {
        let downwards = round % 2 == 0;
        let sequence: Vec<usize> = if downwards { (0..depth).collect() } else { (0..depth).rev().collect() };
        for l in sequence {
            let wanted = order[l].iter().map(|&p| {
                let (near, other) = if downwards { (&up[l][p], l.wrapping_sub(1)) } else { (&down[l][p], l + 1) };
                match near.len() {
                    0 => x[l][p],
                    n => near.iter().map(|&q| x[other][q]).sum::<f64>() / n as f64,
                }
            });
            let wanted: Vec<f64> = wanted.collect();
            let space = |n: usize| {
                let (a, b) = (&rows[l][order[l][n]], &rows[l][order[l][n + 1]]);
                let gap = if matches!((a, b), (Place::Passing(_), Place::Passing(_))) { 0.0 } else { GAP };
                (width(a) + width(b)) / 2.0 + gap
            };
            for (&p, v) in order[l].iter().zip(apart(&wanted, space)) {
                x[l][p] = v;
            }
        }
    }

    // Columns beside each other.
    let mut tops = vec![0.0; depth];
    let (mut left, mut high) = (0.0, 0.0f64);
    for (c, &first) in starts.iter().enumerate() {
        let end = starts.get(c + 1).copied().unwrap_or(depth);
        let edge = |side: f64| {
            (first..end).flat_map(|l| rows[l].iter().zip(&x[l]).map(move |(p, x)| x + side * width(p) / 2.0)).collect()
        };
        let (lefts, rights): (Vec<f64>, Vec<f64>) = (edge(-1.0), edge(1.0));
        let least = lefts.into_iter().fold(f64::INFINITY, f64::min);
        let most = rights.into_iter().fold(f64::NEG_INFINITY, f64::max);
        let mut top = 0.0;
        for l in first..end {
            x[l].iter_mut().for_each(|x| *x += left - least);
            tops[l] = top;
            top += full[l];
        }
        left += most - least + BETWEEN;
        high = high.max(top - FALL);
    }
    let corner = |b: usize| {
        let n = rows[layer[b]].iter().position(|p| *p == Place::Box(b)).expect("every box has a place");
        // Boxes of a layer are centred on each other.
        let (w, h) = sizes.boxes[b];
        (x[layer[b]][n] - w / 2.0, tops[layer[b]] + (heights[layer[b]] - h) / 2.0)
    };
    let corners: Vec<(f64, f64)> = (0..sizes.boxes.len()).map(corner).collect();
    let lines = lines(
        sizes,
        &corners,
        &drawn,
        |e, l| {
            let n = rows[l].iter().position(|p| *p == Place::Passing(e)).expect("a line passes");
            (x[l][n], tops[l], tops[l] + heights[l])
        },
        &layer,
    );
    Placed { corners, lines, width: (left - BETWEEN).max(0.0), height: high }
}

/// Lines that cross between a layer and the one above it.
fn crossings(order: &[usize], up: &[Vec<usize>], rank: &[usize]) -> usize {
    let ends: Vec<usize> = order
        .iter()
        .flat_map(|&p| {
            let mut ends: Vec<usize> = up[p].iter().map(|&q| rank[q]).collect();
            ends.sort_unstable();
            ends
        })
        .collect();
    (0..ends.len()).map(|n| ends[n + 1..].iter().filter(|&&m| m < ends[n]).count()).sum()
}

/// The lines of all edges; where several meet at a box they are spread over its side.
fn lines(
    sizes: &Sizes<'_>,
    corners: &[(f64, f64)],
    drawn: &dyn Fn(&(usize, usize)) -> bool,
    pass: impl Fn(usize, usize) -> (f64, f64, f64),
    layer: &[usize],
) -> Vec<Line> {
    let middle = |b: usize| corners[b].0 + sizes.boxes[b].0 / 2.0;
    // Where the line goes to next, which decides its place among the lines of a side.
    let towards = |e: usize, down: bool| {
        let (a, b) = sizes.edges[e];
        match (layer[b] - layer[a], down) {
            (1, true) => middle(b),
            (1, false) => middle(a),
            (_, true) => pass(e, layer[a] + 1).0,
            (_, false) => pass(e, layer[b] - 1).0,
        }
    };
    let port = |e: usize, down: bool| {
        let own = |o: &(usize, usize)| if down { o.0 } else { o.1 };
        let b = own(&sizes.edges[e]);
        let mut all: Vec<usize> =
            (0..sizes.edges.len()).filter(|&o| own(&sizes.edges[o]) == b && drawn(&sizes.edges[o])).collect();
        all.sort_by(|m, n| towards(*m, down).total_cmp(&towards(*n, down)));
        let place = all.iter().position(|&o| o == e).unwrap_or(0) as f64;
        let space = (sizes.boxes[b].0 * 0.6 / all.len() as f64).min(26.0);
        middle(b) + (place - (all.len() - 1) as f64 / 2.0) * space
    };
    let mut numbers: Vec<usize> = Vec::new();
    let mut line = |(e, &(a, b)): (usize, &(usize, usize))| {
        if !drawn(&(a, b)) {
            let known = numbers.iter().position(|&n| n == a);
            let number = 1 + known.unwrap_or_else(|| {
                numbers.push(a);
                numbers.len() - 1
            });
            return Line::Numbered { number, from: a, to: b };
        }
        let mut points = vec![(port(e, true), corners[a].1 + sizes.boxes[a].1)];
        for l in layer[a] + 1..layer[b] {
            let (x, top, bottom) = pass(e, l);
            points.extend([(x, top), (x, bottom)]);
        }
        points.push((port(e, false), corners[b].1));
        Line::Drawn(points)
    };
    sizes.edges.iter().enumerate().map(&mut line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_keep_their_order_and_their_distance() {
        let x = apart(&[0.0, 0.0, 0.0, 100.0], |_| 10.0);
        assert_eq!(x, [-10.0, 0.0, 10.0, 100.0]);
        assert_eq!(apart(&[5.0, 1.0], |_| 2.0), [2.0, 4.0]);
    }

    /// No box covers another, and every line goes down.
    #[test]
    fn boxes_do_not_overlap() {
        let count = 300;
        let boxes: Vec<_> = (0..count).map(|n| (100.0 + (n % 7) as f64, 40.0 + (n % 3) as f64 * 10.0)).collect();
        // A chain with branches and with lines over short and long distances.
        let mut edges: Vec<_> = (1..count).map(|n| (n - 1 - (n * 7 % 3).min(n - 1), n)).collect();
        edges.extend((40..count).step_by(9).map(|n| (n - 40, n)));
        edges.sort_unstable();
        edges.dedup();
        let placed = place(&Sizes { boxes: &boxes, edges: &edges });
        for a in 0..count {
            for b in 0..a {
                let ((ax, ay), (bx, by)) = (placed.corners[a], placed.corners[b]);
                let apart =
                    ax + boxes[a].0 <= bx || bx + boxes[b].0 <= ax || ay + boxes[a].1 <= by || by + boxes[b].1 <= ay;
                assert!(apart, "{a} {b}");
            }
            let (x, y) = placed.corners[a];
            assert!(x >= -1e-6 && y >= 0.0 && x + boxes[a].0 <= placed.width + 1e-6 && y + boxes[a].1 <= placed.height);
        }
        let mut numbered = 0;
        for line in &placed.lines {
            match line {
                Line::Drawn(points) => assert!(points.windows(2).all(|p| p[0].1 <= p[1].1)),
                Line::Numbered { .. } => numbered += 1,
            }
        }
        assert!(numbered > 0 && numbered < edges.len() / 2, "{numbered} of {}", edges.len());
        assert!(placed.height < 4000.0, "it is divided into columns");
    }
}
