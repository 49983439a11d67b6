"""How what is bundled was made; not part of the installed package."""
