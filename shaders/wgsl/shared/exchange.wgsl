// How `grid` passes h between workgroups: as bits, of which one pattern means that h has not been stored yet.
#import recurrent

// The bits of an h that has not been stored: a NaN that no arithmetic produces, and an integer that f32 can represent.
const NOT_YET: u32 = 0xffffff00u;
// Number of elements of `exchange` before the first h. The first of them is set to GAVE_UP when a lane gives up.
const GRID_HEAD: u32 = 4u;
const GAVE_UP: u32 = 1u;

// The bits of h in the form in which they are exchanged.
fn sent(h: f32) -> u32 {
    let bits = bitcast<u32>(h);
    return select(bits, 0x7fc00000u, bits == NOT_YET);
}
