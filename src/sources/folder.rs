//! `file://` uris below the import folder.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};

use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};

/// Why a uri names nothing that may be imported.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    #[error("is not a uri that this server reads: expected file:///… below the import folder")]
    Scheme,
    #[error("names the host {0:?}: a file uri here has none, as in file:///images/disk.qcow2")]
    Host(String),
    #[error("has a broken percent escape or is not UTF-8")]
    Escape,
    #[error("has a \"..\", \".\" or empty segment, or a NUL: write the plain absolute path")]
    Segment,
    #[error("has a query or a fragment: a file uri has neither")]
    Query,
    #[error("the server has no import folder: start it with --import-dir")]
    NoFolder,
    #[error("is not below the import folder {0}")]
    Outside(PathBuf),
    #[error("names no file in the import folder")]
    NotFound,
    #[error("leaves the import folder through a symbolic link")]
    Escapes,
    #[error("is not a regular file")]
    NotAFile,
    #[error("cannot be read: {}", .0.kind())]
    Io(io::Error),
}

/// The folder below which the administrator lets files be imported.
pub(crate) struct ImportFolder {
    /// The path of the folder, as it was given and without symbolic links.
    roots: [PathBuf; 2],
    folder: Dir,
}

/// The absolute path that a `file://` uri names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileUri(PathBuf);

impl FileUri {
    /// Parses `file:///path` or `file://localhost/path` (RFC 8089).
    pub(crate) fn parse(uri: &str) -> Result<Self, SourceError> {
        let scheme = uri.get(..7).unwrap_or_default();
        if !scheme.eq_ignore_ascii_case("file://") {
            return Err(SourceError::Scheme);
        }
        let rest = &uri[scheme.len()..];
        let (host, path) = rest.split_at(rest.find('/').ok_or(SourceError::Scheme)?);
        if !host.is_empty() && !host.eq_ignore_ascii_case("localhost") {
            return Err(SourceError::Host(host.to_owned()));
        }
        if path.contains(['?', '#']) {
            return Err(SourceError::Query);
        }
        let well_escaped = path.split('%').skip(1).all(|rest| {
            matches!(rest.as_bytes(), [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit())
        });
        if !well_escaped {
            return Err(SourceError::Escape);
        }
        let mut parsed = PathBuf::from("/");
        for segment in path[1..].split('/') {
            let segment = percent_encoding::percent_decode_str(segment)
                .decode_utf8()
                .map_err(|_| SourceError::Escape)?;
            // An escaped slash would make two segments of one.
            if matches!(&*segment, "" | "." | "..") || segment.contains(['/', '\0']) {
                return Err(SourceError::Segment);
            }
            parsed.push(&*segment);
        }
        Ok(Self(parsed))
    }
}

impl ImportFolder {
    /// Opens the folder. Blocks.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let folder = Dir::open_ambient_dir(path, ambient_authority())?;
        Ok(Self {
            roots: [std::path::absolute(path)?, path.canonicalize()?],
            folder,
        })
    }

    /// Opens a file below the folder; nothing else can be reached, not through links either.
    /// Blocks.
    pub(crate) fn file(&self, uri: &FileUri) -> Result<File, SourceError> {
        let relative = self
            .roots
            .iter()
            .find_map(|root| uri.0.strip_prefix(root).ok())
            .ok_or_else(|| SourceError::Outside(self.roots[0].clone()))?;
        if !matches!(relative.components().next(), Some(Component::Normal(_))) {
            return Err(SourceError::NotAFile);
        }
        let mut options = OpenOptions::new();
        options.read(true);
        // A FIFO would wait for a writer.
        options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32);
        let file = match self.folder.open_with(relative, &options) {
            Ok(file) => file.into_std(),
            Err(error) => return Err(self.why(relative, error)),
        };
        let metadata = file.metadata().map_err(SourceError::Io)?;
        if !metadata.is_file() {
            return Err(SourceError::NotAFile);
        }
        Ok(file)
    }

    fn why(&self, relative: &Path, error: io::Error) -> SourceError {
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => SourceError::NotFound,
            // The sandbox says so of every path that would leave it.
            ErrorKind::PermissionDenied if self.passes_a_link(relative) => SourceError::Escapes,
            _ => SourceError::Io(error),
        }
    }

    fn passes_a_link(&self, relative: &Path) -> bool {
        relative.ancestors().any(|path| {
            !path.as_os_str().is_empty()
                && self
                    .folder
                    .symlink_metadata(path)
                    .is_ok_and(|metadata| metadata.is_symlink())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn uris_are_plain_absolute_paths() {
        let path = |uri: &str| FileUri::parse(uri).map(|uri| uri.0.display().to_string());
        for (uri, expected) in [
            ("file:///a/b.img", "/a/b.img"),
            ("FILE://localhost/a/b", "/a/b"),
            ("file:///a%20b/%D1%8F", "/a b/я"),
        ] {
            assert_eq!(path(uri).unwrap(), expected, "{uri}");
        }
        for (uri, expected) in [
            ("", "is not a uri"),
            ("http://a/b", "is not a uri"),
            ("/a/b", "is not a uri"),
            ("file:a", "is not a uri"),
            ("file://a", "is not a uri"),
            ("file://host/a", "names the host \"host\""),
            ("file:///a/../b", "\"..\""),
            ("file:///a/%2e%2E/b", "\"..\""),
            ("file:///a/./b", "\"..\""),
            ("file:///a//b", "\"..\""),
            ("file:///", "\"..\""),
            ("file:///a%2Fb", "\"..\""),
            ("file:///a%00b", "\"..\""),
            ("file:///a%", "escape"),
            ("file:///a%4", "escape"),
            ("file:///a%zz", "escape"),
            ("file:///a%ff", "escape"),
            ("file:///a?b", "query"),
        ] {
            let message = path(uri).expect_err(uri).to_string();
            assert!(message.contains(expected), "{uri}: {message}");
        }
    }

    #[test]
    fn nothing_outside_the_folder_can_be_opened() {
        let outside = tempfile::tempdir().unwrap();
        let secret = outside.path().join("secret");
        std::fs::write(&secret, "secret").unwrap();
        let inside = tempfile::tempdir().unwrap();
        let root = inside.path();
        std::fs::write(root.join("disk.img"), "disk").unwrap();
        std::fs::create_dir(root.join("sub")).unwrap();
        symlink("disk.img", root.join("link-inside")).unwrap();
        symlink(&secret, root.join("link-outside")).unwrap();
        symlink(outside.path(), root.join("folder-outside")).unwrap();
        symlink("../..", root.join("sub/up")).unwrap();
        symlink("nothing", root.join("dangling")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            root.join("fifo"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();

        let folder = ImportFolder::open(root).unwrap();
        let open = |path: PathBuf| folder.file(&FileUri(path));
        assert!(open(root.join("disk.img")).is_ok());
        assert!(open(root.join("link-inside")).is_ok());
        for (path, expected) in [
            (secret.clone(), "is not below"),
            (root.to_owned(), "not a regular file"),
            (root.join("sub"), "not a regular file"),
            (root.join("fifo"), "not a regular file"),
            (root.join("missing"), "names no file"),
            (root.join("disk.img/x"), "names no file"),
            (root.join("dangling"), "names no file"),
            (root.join("link-outside"), "symbolic link"),
            (root.join("folder-outside/secret"), "symbolic link"),
            (root.join("sub/up/etc/passwd"), "symbolic link"),
        ] {
            let message = open(path.clone()).expect_err("refused").to_string();
            assert!(message.contains(expected), "{path:?}: {message}");
        }
    }
}
