"""README.md and docs/: their commands, code, links and pictures, and the site made of them."""
