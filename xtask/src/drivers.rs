//! Debian packages, and Vulkan drivers from them that need no hardware.

use crate::{Outcome, command, root, run, show};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Once;

/// Unpacks Google's SwiftShader, which is part of Debian's Chromium package, below `target`. Returns its ICD file, for
/// `VK_DRIVER_FILES`. It shares no code with Mesa's lavapipe, so what passes on both is likely portable.
pub(crate) fn swiftshader() -> Outcome<PathBuf> {
    let folder = root().join("target/drivers/swiftshader");
    let icd = folder.join("usr/lib/chromium/vk_swiftshader_icd.json");
    if !icd.exists() {
        apt_download(&["chromium-common"], &folder, "amd64")
            .and_then(|_| unpack(&folder, &["*swiftshader*"]))
            .map_err(|e| format!("SwiftShader comes from Debian's package chromium-common, by apt-get: {e}"))?;
    }
    if icd.exists() { Ok(icd) } else { Err(format!("chromium-common has no {}", icd.display())) }
}

/// Installs Debian packages, as root or through sudo.
pub(crate) fn install(packages: &[&str]) -> Outcome {
    if command("apt-get").arg("--version").output().is_err() {
        return Err(format!("there is no apt-get to install {}", packages.join(" ")));
    }
    let is_root = command("id").arg("-u").output().is_ok_and(|o| o.stdout.trim_ascii() == b"0");
    let apt = |arguments: &[&str]| {
        let mut c = if is_root { command("apt-get") } else { command("sudo") };
        if !is_root {
            c.arg("apt-get");
        }
        c.env("DEBIAN_FRONTEND", "noninteractive").args(arguments);
        run(c)
    };
    // Failures are ignored: the lists may be recent enough, and a machine without a network may have a cache.
    let install: Vec<&str> =
        ["install", "-y", "--no-install-recommends"].into_iter().chain(packages.to_vec()).collect();
    apt(&["update"]).and_then(|()| apt(&install)).or_else(|_| apt(&install))
}

/// Downloads Debian packages of an architecture to a folder. No special rights are needed, because the package lists
/// are the project's own. Returns their paths.
pub(crate) fn apt_download(packages: &[&str], folder: &Path, architecture: &str) -> Outcome<Vec<PathBuf>> {
    static UPDATED: Once = Once::new();
    let e = |e: std::io::Error| format!("{}: {e}", folder.display());
    let apt = root().join("target/apt");
    for d in [folder, &apt.join("state/lists/partial"), &apt.join("cache/archives/partial")] {
        std::fs::create_dir_all(d).map_err(e)?;
    }
    let apt_get = || {
        let mut c = command("apt-get");
        for architecture in ["amd64", "arm64"] {
            c.arg("-o").arg(format!("APT::Architectures::={architecture}"));
        }
        c.arg("-o").arg(format!("Dir::State={}", apt.join("state").display()));
        c.arg("-o").arg(format!("Dir::Cache={}", apt.join("cache").display()));
        // As root, apt downloads as another user that cannot write here, and prints a warning.
        c.args(["-o", "APT::Sandbox::User=root", "-o", "Acquire::Languages=none", "--quiet"]);
        c
    };
    UPDATED.call_once(|| {
        let mut update = apt_get();
        update.arg("update");
        // Some sources may be unreachable without affecting the download; if it is affected, it fails itself.
        if let Err(e) = run(update) {
            eprintln!("xtask: {e}");
        }
    });
    let before = archives(folder).map_err(e)?;
    let mut download = apt_get();
    download.arg("download").args(packages.iter().map(|p| format!("{p}:{architecture}"))).current_dir(folder);
    run(download).map_err(|e| format!("{e}; this needs Debian 12 with its sources of packages within reach"))?;
    Ok(archives(folder).map_err(e)?.into_iter().filter(|p| !before.contains(p)).collect())
}

fn archives(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let all: std::io::Result<Vec<_>> = std::fs::read_dir(folder)?.map(|f| f.map(|f| f.path())).collect();
    Ok(all?.into_iter().filter(|p| p.extension().is_some_and(|e| e == "deb")).collect())
}

/// Unpacks the Debian packages in a folder there, then deletes them. If there are patterns, only files that match one
/// are unpacked.
pub(crate) fn unpack(folder: &Path, patterns: &[&str]) -> Outcome {
    for archive in archives(folder).map_err(|e| format!("{}: {e}", folder.display()))? {
        let mut open = command("dpkg-deb");
        open.arg("--fsys-tarfile").arg(&archive).stdout(Stdio::piped());
        let mut opened = open.spawn().map_err(|e| format!("{}: {e}", show(&open)))?;
        let mut tar = command("tar");
        tar.arg("--extract").arg("--directory").arg(folder);
        if !patterns.is_empty() {
            tar.arg("--wildcards").args(patterns);
        }
        tar.stdin(opened.stdout.take().expect("standard output is a pipe"));
        run(tar)?;
        let ended = opened.wait().map_err(|e| format!("{}: {e}", show(&open)))?;
        if !ended.success() {
            return Err(format!("{} ended with {ended}", show(&open)));
        }
        std::fs::remove_file(&archive).map_err(|e| format!("{}: {e}", archive.display()))?;
    }
    Ok(())
}
