//! Suppresses a message of Mesa.

/// Mesa's device-selection layer asks a Wayland compositor which GPU it prefers. Without a graphical session there is
/// no compositor, and the layer prints an error for every instance. In that case this function disables the layer.
pub(crate) fn no_session_no_complaint() {
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() && std::env::var_os("NODEVICE_SELECT").is_none() {
        // SAFETY: called at the start of `main`, when no other thread exists that could read or write the environment.
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    }
}
