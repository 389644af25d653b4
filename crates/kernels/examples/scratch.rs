#![allow(missing_docs)]
use recurve_kernels::*;
use recurve_reference as refr;
use recurve_tensor::*;
use std::time::Instant;
fn rnd(n: usize, seed: &mut u64, scale: f32) -> Vec<f32> {
    (0..n)
        .map(|_| {
            *seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((*seed >> 40) as f32 / 8388608.0 - 1.0) * scale
        })
        .collect()
}
fn main() {
    let gpu = Device::by_name("vulkan:llvmpipe").unwrap();
    let mode = std::env::args().nth(1).unwrap_or("check".into());
    let mut seed = 7;
    if mode == "check" {
        for cell in [Cell::RNN, Cell::LSTM, Cell::GRU, Cell::GRU_RESET_BEFORE] {
            for (b, t, i, h) in
                [(1, 1, 1, 1), (2, 5, 3, 3), (3, 17, 5, 33), (5, 9, 16, 64), (7, 3, 20, 130), (1, 64, 128, 128)]
            {
                let g = cell.kind.gates();
                let sc = 1.0 / (h as f32).sqrt();
                let mk = |seed: &mut u64| DirectionWeights {
                    w_ih: rnd(g * h * i, seed, sc),
                    w_hh: rnd(g * h * h, seed, sc),
                    b_ih: rnd(g * h, seed, sc),
                    b_hh: rnd(g * h, seed, sc),
                    peepholes: if matches!(cell.kind, CellKind::Lstm { .. }) { rnd(3 * h, seed, sc) } else { vec![] },
                };
                let (w0, w1) = (mk(&mut seed), mk(&mut seed));
                let x = rnd(b * t * i, &mut seed, 1.0);
                let h0 = rnd(2 * b * h, &mut seed, 1.0);
                let c0 = rnd(2 * b * h, &mut seed, 1.0);
                let lens: Vec<u32> = (0..b).map(|n| ((n * 7 + 3) % (t + 1)) as u32).collect();
                let dirs = [(Direction::Forward, &w0), (Direction::Reverse, &w1)];
                let cfg = RecurrentConfig { cell, input_size: i, hidden_size: h, directions: &dirs };
                let wide = |v: &[f32]| v.iter().map(|&v| v as f64).collect::<Vec<_>>();
                let mut want = vec![0f64; b * t * 2 * h];
                let mut wh = vec![];
                let mut wc = vec![];
                let ulens: Vec<usize> = lens.iter().map(|&l| l as usize).collect();
                for (d, (dir, w)) in dirs.iter().enumerate() {
                    let w64 = DirectionWeights {
                        w_ih: wide(&w.w_ih),
                        w_hh: wide(&w.w_hh),
                        b_ih: wide(&w.b_ih),
                        b_hh: wide(&w.b_hh),
                        peepholes: wide(&w.peepholes),
                    };
                    let (h0w, c0w, xw) =
                        (wide(&h0[d * b * h..(d + 1) * b * h]), wide(&c0[d * b * h..(d + 1) * b * h]), wide(&x));
                    let o = refr::recurrence(&refr::Recurrence {
                        cell,
                        direction: *dir,
                        weights: &w64,
                        x: &xw,
                        batch: b,
                        timesteps: t,
                        input_size: i,
                        hidden_size: h,
                        h0: Some(&h0w),
                        c0: Some(&c0w),
                        lengths: Some(&ulens),
                    });
                    for r in 0..b * t {
                        want[r * 2 * h + d * h..][..h].copy_from_slice(&o.y[r * h..][..h]);
                    }
                    wh.extend(o.h);
                    wc.extend(o.c);
                }
                for (dev, strat) in
                    [(Device::Cpu, Strategy::Auto), (gpu.clone(), Strategy::Scan), (gpu.clone(), Strategy::Step)]
                {
                    let op = Recurrent::new(&cfg, &dev).unwrap();
                    let xt = Tensor::from_f32(&x, &[b, t, i], &dev).unwrap();
                    let h0t = Tensor::from_f32(&h0, &[2, b, h], &dev).unwrap();
                    let c0t = Tensor::from_f32(&c0, &[2, b, h], &dev).unwrap();
                    let lt = Tensor::from_u32(&lens, &[b], &dev).unwrap();
                    for budget in [64 << 20, 2 * b * g * h * 4 * 2] {
                        let a = ForwardArgs {
                            h0: Some(&h0t),
                            c0: cell.kind.has_cell_state().then_some(&c0t),
                            lengths: Some(&lt),
                            strategy: strat,
                            projection_budget: budget,
                            ..Default::default()
                        };
                        let o = op.forward(&xt, &a).unwrap();
                        let e = |a: Vec<f32>, w: &[f64]| {
                            a.iter()
                                .zip(w)
                                .map(|(a, w)| (*a as f64 - w).abs())
                                .fold(0f64, |m, v| if v <= m { m } else { v })
                        };
                        let (ey, eh) = (e(o.y.unwrap().to_vec().unwrap(), &want), e(o.h.to_vec().unwrap(), &wh));
                        let ec = o.c.map(|c| e(c.to_vec().unwrap(), &wc)).unwrap_or(0.0);
                        let bad = ey > 2e-6 || eh > 2e-6 || ec > 4e-6;
                        if bad {
                            println!(
                                "{:?} {:?} {} {:?} budget {budget}: y {ey:.2e} h {eh:.2e} c {ec:.2e} BAD",
                                cell.kind,
                                (b, t, i, h),
                                dev.backend(),
                                strat
                            );
                        }
                    }
                }
            }
        }
        println!("done");
    }
    let shapes: Vec<(usize, usize, usize, usize)> = if let Ok(v) = std::env::var("SHAPE") {
        let v: Vec<usize> = v.split(",").map(|x| x.parse().unwrap()).collect();
        vec![(v[0], v[1], v[2], v[3])]
    } else {
        vec![
            (16, 1, 128, 128),
            (64, 1, 128, 128),
            (256, 1, 128, 128),
            (1024, 1, 128, 128),
            (128, 1, 256, 256),
            (128, 32, 256, 256),
            (100, 16, 512, 512),
            (25, 1, 1024, 1024),
            (64, 64, 64, 64),
        ]
    };
    let ds: Vec<(Device, Strategy)> = match mode.as_str() {
        "cpu" => vec![(Device::Cpu, Strategy::Auto)],
        "gpu" => vec![(gpu.clone(), Strategy::Scan), (gpu.clone(), Strategy::Step)],
        _ => vec![],
    };
    for (t, b, i, h) in shapes {
        for cell in [Cell::LSTM, Cell::GRU, Cell::RNN]
            .into_iter()
            .filter(|c| std::env::var("CELL").map_or(true, |v| v == c.kind.name()))
        {
            let g = cell.kind.gates();
            let sc = 1.0 / (h as f32).sqrt();
            let w0 = DirectionWeights {
                w_ih: rnd(g * h * i, &mut seed, sc),
                w_hh: rnd(g * h * h, &mut seed, sc),
                b_ih: rnd(g * h, &mut seed, sc),
                b_hh: rnd(g * h, &mut seed, sc),
                peepholes: vec![],
            };
            let cfg = RecurrentConfig { cell, input_size: i, hidden_size: h, directions: &[(Direction::Forward, &w0)] };
            let x = rnd(b * t * i, &mut seed, 1.0);
            for (dev, strat) in &ds {
                let op = Recurrent::new(&cfg, dev).unwrap();
                let a = ForwardArgs { strategy: *strat, ..Default::default() };
                let mut ts = vec![];
                let t00 = Instant::now();
                let mut out = vec![0f32; b * t * h];
                while ts.len() < 3 || (ts.len() < 50 && t00.elapsed().as_millis() < 600) {
                    let t0 = Instant::now();
                    let xt = Tensor::from_f32(&x, &[b, t, i], dev).unwrap();
                    let Ok(o) = op.forward(&xt, &a) else { break };
                    o.y.unwrap().read_into(&mut out).unwrap();
                    ts.push(t0.elapsed().as_secs_f64() * 1e3);
                }
                if ts.is_empty() {
                    continue;
                }
                ts.sort_by(f64::total_cmp);
                print!("{:?} {:5} {:>5}: {:8.3} ms   ", (t, b, i, h), cell.kind.name(), strat.name(), ts[ts.len() / 2]);
            }
        }
        println!();
    }
}
