"""What the tabs share: messages, translations, request filtering."""
