# Manual pages are plain roff; nothing to build.
