"""How text is generated: one interface (`base`), one implementation per engine."""
