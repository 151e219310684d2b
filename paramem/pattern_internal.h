/* What the files of patterns share. */
#ifndef PARAMEM_PATTERN_INTERNAL_H
#define PARAMEM_PATTERN_INTERNAL_H

#include <stddef.h>
#include <stdint.h>

/* Characters from first to last of a category or script. */
struct paramem_category {
    const char name[12];
    uint32_t first, last;
};
extern const struct paramem_category paramem_categories_newer[];
extern const size_t paramem_categories_newer_count;

#endif
