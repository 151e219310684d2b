/* FAISS's C interface, as much of it as we use.
 *
 * The headers of FAISS 1.7.3 have no search with parameters; what is declared below is what later
 * releases have, name by name and argument by argument. Debian 12 has the headers but not the
 * library behind them: faiss_c.cpp is that library, and is left out where libfaiss_c is installed
 * (retrieval/meson.build).
 *
 * FAISS's headers give global names away (OK, idx_t): only .c files that speak to FAISS include
 * this one.
 *
 * Functions give 0, or another number and a text (faiss_get_last_error, of the same thread). They
 * throw nothing, except that memory which runs out inside one of FAISS's parallel loops ends the
 * program, as in any use of it. */
#ifndef RETRIEVAL_FAISS_C_H
#define RETRIEVAL_FAISS_C_H

#include <faiss/c_api/AutoTune_c.h>
#include <faiss/c_api/IndexFlat_c.h>
#include <faiss/c_api/IndexIVF_c.h>
#include <faiss/c_api/Index_c.h>
#include <faiss/c_api/error_c.h>
#include <faiss/c_api/impl/AuxIndexStructures_c.h>
#include <faiss/c_api/index_factory_c.h>
#include <faiss/c_api/index_io_c.h>

#ifdef __cplusplus
extern "C" {
#endif

FAISS_DECLARE_CLASS(SearchParameters)
FAISS_DECLARE_CLASS_INHERITED(SearchParametersIVF, SearchParameters)
FAISS_DECLARE_CLASS_INHERITED(IDSelectorBitmap, IDSelector)

/* n: bytes of the bitmap, which is viewed. Freed by faiss_IDSelector_free. */
int faiss_IDSelectorBitmap_new(FaissIDSelectorBitmap **p_sel, size_t n, const uint8_t *bitmap);

/* These view sel (NULL: everything). Freed by faiss_SearchParameters_free. */
int faiss_SearchParameters_new(FaissSearchParameters **p_sp, FaissIDSelector *sel);
int faiss_SearchParametersIVF_new_with(
    FaissSearchParametersIVF **p_sp, FaissIDSelector *sel, size_t nprobe, size_t max_codes);
void faiss_SearchParameters_free(FaissSearchParameters *obj);

int faiss_Index_search_with_params(const FaissIndex *index, idx_t n, const float *x, idx_t k,
    const FaissSearchParameters *params, float *distances, idx_t *labels);

/* Of libgomp, which FAISS works with; <omp.h> belongs to the compiler and clang has another. How
 * many threads the parallel loops of the calling thread have. */
int omp_get_max_threads(void);
void omp_set_num_threads(int threads);

#ifdef __cplusplus
}
#endif

#endif
