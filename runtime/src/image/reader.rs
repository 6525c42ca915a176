//! Reading packed layers: unpacking on the fly, and digests of what passes.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest, Sha256};

/// Unpacks if it is packed, told by the first bytes rather than by a media type that may be wrong.
pub(super) fn unpacked<R: Read + 'static>(source: R) -> io::Result<Box<dyn Read>> {
    let mut source = BufReader::with_capacity(64 * 1024, source);
    let start = source.fill_buf()?;
    if start.starts_with(&[0x1f, 0x8b]) {
        Ok(Box::new(MultiGzDecoder::new(source)))
    } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Err(io::Error::new(io::ErrorKind::Unsupported, "zstd-packed layers are not supported yet"))
    } else {
        Ok(Box::new(source))
    }
}

/// Computes the digest of everything that is read through it.
pub(super) struct Digesting<R> {
    source: R,
    hasher: Sha256,
}

impl<R: Read> Digesting<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, hasher: Sha256::new() }
    }

    /// Reads what is left and returns the digest of all.
    pub(super) fn finish(mut self) -> io::Result<String> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(format!("sha256:{}", hex::encode(self.hasher.finalize())))
    }
}

impl<R: Read> Read for Digesting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.hasher.update(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}
