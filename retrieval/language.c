/* The languages that Snowball has a stemmer for. */
#include "retrieval/words.h"

#include <string.h>
#include <strings.h>

/* Sorted by tag. English is looked up by name below. */
static const struct retrieval_language languages[] = {
    {"ar", "arabic", true, false},
    {"ca", "catalan", true, true},
    {"da", "danish", true, false},
    {"de", "german", true, false},
    {"el", "greek", true, false},
    {"en", "english", false, false},
    {"es", "spanish", true, false},
    {"eu", "basque", true, false},
    {"fi", "finnish", true, false},
    {"fr", "french", true, true},
    {"ga", "irish", true, false},
    {"hi", "hindi", true, false},
    {"hu", "hungarian", true, false},
    {"hy", "armenian", true, false},
    {"id", "indonesian", false, false},
    {"it", "italian", true, true},
    {"lt", "lithuanian", true, false},
    {"nb", "norwegian", true, false},
    {"ne", "nepali", true, false},
    {"nl", "dutch", true, false},
    {"nn", "norwegian", true, false},
    {"no", "norwegian", true, false},
    {"pt", "portuguese", true, false},
    {"ro", "romanian", true, false},
    {"ru", "russian", true, false},
    {"sr", "serbian", true, false},
    {"sv", "swedish", true, false},
    {"ta", "tamil", true, false},
    {"tr", "turkish", true, false},
    {"yi", "yiddish", true, false},
};

enum {
    LANGUAGE_COUNT = sizeof languages / sizeof languages[0],
    LANGUAGE_ENGLISH = 5,
};

const struct retrieval_language *retrieval_language_of(struct memos_bytes tag)
{
    const char *text = tag.data;
    bool primary_only = tag.size == 2 || (tag.size > 2 && (text[2] == '-' || text[2] == '_'));
    for (size_t i = 0; primary_only && i < LANGUAGE_COUNT; i++) {
        if (strncasecmp(languages[i].tag, text, 2) == 0) {
            return &languages[i];
        }
    }
    return &languages[LANGUAGE_ENGLISH];
}

size_t retrieval_language_count(void)
{
    return LANGUAGE_COUNT;
}

size_t retrieval_language_number(const struct retrieval_language *language)
{
    return (size_t)(language - languages);
}
