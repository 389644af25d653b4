// The place of an index in an axis of so many, from the end if it is negative; the size if it is outside.
#import nan

fn place(index: INDEX, size: u32) -> u32 {
#if WHOLE
    return min(index, size);
#else
    let v = trunc(index);
    let most = f32(size);
    if is_nan(index) || !(v >= -most && v < most) { return size; }
    return min(u32(select(v, v + most, v < 0.0)), size);
#end
}
