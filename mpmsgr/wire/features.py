"""Feature bits and their names (wire spec §12).

Bits are recycled by Ceph: a feature is present only when all bits of its mask are set, the mask
being the bit and the marker of its incarnation.
"""

from __future__ import annotations

_INC2 = 1 << 57
_INC3 = _INC2 | 1 << 28

NOSRCADDR = 1 << 1
RECONNECT_SEQ = 1 << 6
MSG_AUTH = 1 << 23
MSGR_KEEPALIVE2 = 1 << 42
MSG_ADDR2 = 1 << 59
CEPHX_V2 = 1 << 61
SERVER_JEWEL = _INC2

#: What this messenger acts on; offered to peers that are no Ceph daemons.
SUPPORTED = NOSRCADDR | RECONNECT_SEQ | MSG_AUTH | MSGR_KEEPALIVE2
#: What a Ceph 16.2 daemon offers (real-peer observation); an endpoint with a Ceph name needs it,
#: as monitors refuse clients without their release's bits.
CEPH_PACIFIC = 0x3F01CFBDFFFDFFFF
#: A Jewel peer that sets bit 63 means only the low 33 bits.
RESERVED_BROKEN = 1 << 63
_BROKEN_MASK = 0x1FFFFFFFF

NAMES: dict[str, int] = {
    "UID": 1 << 0,
    "NOSRCADDR": NOSRCADDR,
    "FLOCK": 1 << 3,
    "SUBSCRIBE2": 1 << 4,
    "MONNAMES": 1 << 5,
    "RECONNECT_SEQ": RECONNECT_SEQ,
    "DIRLAYOUTHASH": 1 << 7,
    "OBJECTLOCATOR": 1 << 8,
    "PGID64": 1 << 9,
    "INCSUBOSDMAP": 1 << 10,
    "PGPOOL3": 1 << 11,
    "OSDREPLYMUX": 1 << 12,
    "OSDENC": 1 << 13,
    "MONENC": 1 << 15,
    "CRUSH_TUNABLES": 1 << 18,
    "MSG_AUTH": MSG_AUTH,
    "CRUSH_TUNABLES2": 1 << 25,
    "CREATEPOOLID": 1 << 26,
    "REPLY_CREATE_INODE": 1 << 27,
    "OSDHASHPSPOOL": 1 << 30,
    "OSD_CACHEPOOL": 1 << 35,
    "CRUSH_V2": 1 << 36,
    "EXPORT_PEER": 1 << 37,
    "OSD_ERASURE_CODES": 1 << 38,
    "OSDMAP_ENC": 1 << 39,
    "MDS_INLINE_DATA": 1 << 40,
    "CRUSH_TUNABLES3": 1 << 41,
    "MSGR_KEEPALIVE2": MSGR_KEEPALIVE2,
    "OSD_POOLRESEND": 1 << 43,
    "OSD_FADVISE_FLAGS": 1 << 46,
    "CRUSH_V4": 1 << 48,
    "OSD_PROXY_FEATURES": 1 << 54,
    "MON_METADATA": 1 << 55,
    "OSD_BITWISE_HOBJ_SORT": 1 << 56,
    "SERVER_JEWEL": SERVER_JEWEL,
    "NEW_OSDOP_ENCODING": 1 << 58,
    "MSG_ADDR2": MSG_ADDR2,
    "MDS_QUOTA": 1 << 60,
    "CEPHX_V2": CEPHX_V2,
    "SERVER_KRAKEN": 1 << 14 | _INC2,
    "SERVER_LUMINOUS": 1 << 21 | _INC2,
    "SERVER_MIMIC": _INC3,
    "SERVER_NAUTILUS": 1 << 2 | _INC3,
    "SERVER_OCTOPUS": 1 << 16 | _INC3,
    "SERVER_PACIFIC": 1 << 20 | _INC3,
    "SERVER_QUINCY": 1 << 33 | _INC3,
    "SERVER_REEF": 1 << 31 | _INC3,
}


def has_feature(features: int, mask: int) -> bool:
    """True when every bit of *mask* is set."""
    return features & mask == mask


def sanitize(features: int) -> int:
    """What a peer's announced bits mean (bit 63: only the low 33 count)."""
    return features & _BROKEN_MASK if features & RESERVED_BROKEN else features


def feature_names(features: int) -> list[str]:
    """Names of the known features present in *features*, in bit order."""
    present = [(mask, name) for name, mask in NAMES.items() if has_feature(features, mask)]
    return [name for _, name in sorted(present)]
