// How `grid` hands h from workgroup to workgroup: as its bits, of which some say that there is no h yet.
#import recurrent

// Bits of an h that has not been stored: a NaN that no arithmetic makes, and an integer that f32 has.
const NOT_YET: u32 = 0xffffff00u;
// Elements of `exchange` before the first h: the first of them becomes GAVE_UP.
const GRID_HEAD: u32 = 4u;
const GAVE_UP: u32 = 1u;

// The bits of h as they are exchanged.
fn sent(h: f32) -> u32 {
    let bits = bitcast<u32>(h);
    return select(bits, 0x7fc00000u, bits == NOT_YET);
}
