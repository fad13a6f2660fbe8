# Manual pages are plain roff; nothing to build. A page that several calls share has links beside it, so that
# man -l finds it in the source tree; installed they are pages that name it (.so), which packages can compress.
