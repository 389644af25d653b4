//! The one adjustment that the command makes to its environment.

/// Mesa's device-selection layer asks a Wayland compositor which GPU it prefers, and prints an error
/// for every instance where there is no session to have one. Without a session there is nothing
/// to ask, so the layer is switched off.
pub(crate) fn no_session_no_complaint() {
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() && std::env::var_os("NODEVICE_SELECT").is_none() {
        // SAFETY: called first thing in `main`, before there is a second thread that could read or
        // write the environment.
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    }
}
