"""The kinds of emoji: subgroups of emoji-test.txt 15.0 that have an emoji with a name short enough."""

KINDS = (
    "alphanum", "animal-amphibian", "animal-bird", "animal-bug", "animal-mammal", "animal-marine", "animal-reptile",
    "arrow", "arts & crafts", "av-symbol", "award-medal", "body-parts", "book-paper", "cat-face", "clothing",
    "computer", "country-flag", "currency", "dishware", "drink", "emotion", "event", "face-affection",
    "face-concerned", "face-costume", "face-glasses", "face-hand", "face-hat", "face-negative",
    "face-neutral-skeptical", "face-sleepy", "face-smiling", "face-tongue", "face-unwell", "family", "flag",
    "food-asian", "food-fruit", "food-marine", "food-prepared", "food-sweet", "food-vegetable", "game", "gender",
    "geometric", "hand-fingers-closed", "hand-fingers-open", "hand-fingers-partial", "hand-prop",
    "hand-single-finger", "hands", "heart", "hotel", "household", "keycap", "light & video", "lock", "mail", "math",
    "medical", "money", "monkey-face", "music", "musical-instrument", "office", "other-object", "other-symbol",
    "person", "person-activity", "person-fantasy", "person-gesture", "person-resting", "person-role",
    "person-sport", "person-symbol", "phone", "place-building", "place-geographic", "place-map", "place-other",
    "place-religious", "plant-flower", "plant-other", "punctuation", "religion", "science", "sky & weather",
    "sound", "sport", "subdivision-flag", "time", "tool", "transport-air", "transport-ground", "transport-sign",
    "transport-water", "warning", "writing", "zodiac",
)  # fmt: skip
