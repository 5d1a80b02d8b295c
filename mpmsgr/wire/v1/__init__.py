"""The bytes of msgr v1 (banner ``ceph v027``): handshake structures, frames, their parser."""
