/* The part of FAISS's C interface that memos uses, on top of FAISS (faiss_c.h says why).
 *
 * Same names, arguments and results as FAISS's own; an exception becomes its error code and its
 * text. Unlike FAISS's own debug builds, nothing is printed.
 *
 * Threads: as FAISS's: the last error belongs to the thread that made it. */
#include "retrieval/faiss_c.h"

#include <faiss/AutoTune.h>
#include <faiss/IndexFlat.h>
#include <faiss/IndexIVF.h>
#include <faiss/impl/FaissException.h>
#include <faiss/impl/IDSelector.h>
#include <faiss/index_factory.h>
#include <faiss/index_io.h>

#include <algorithm>
#include <cstdio>
#include <exception>

namespace
{

thread_local char last_error[512];

int failed(FaissErrorCode code, const char *text) noexcept
{
    snprintf(last_error, sizeof last_error, "%s", text);
    return code;
}

template <typename Call> int guarded(Call call) noexcept
{
    try {
        call();
        return OK;
    } catch (const faiss::FaissException &e) {
        return failed(FAISS_EXCEPT, e.what());
    } catch (const std::exception &e) {
        return failed(STD_EXCEPT, e.what());
    } catch (...) {
        return failed(UNKNOWN_EXCEPT, "Unknown error");
    }
}

/* C's handles are C++'s objects under another name. */
faiss::Index *cpp(FaissIndex *index)
{
    return reinterpret_cast<faiss::Index *>(index);
}
const faiss::Index *cpp(const FaissIndex *index)
{
    return reinterpret_cast<const faiss::Index *>(index);
}
FaissIndex *c(faiss::Index *index)
{
    return reinterpret_cast<FaissIndex *>(index);
}
faiss::IDSelector *cpp(FaissIDSelector *selector)
{
    return reinterpret_cast<faiss::IDSelector *>(selector);
}

} // namespace

extern "C" {

const char *faiss_get_last_error()
{
    return last_error;
}

/* ---- any index ----------------------------------------------------------------------------- */

void faiss_Index_free(FaissIndex *index)
{
    delete cpp(index);
}

int faiss_Index_d(const FaissIndex *index)
{
    return cpp(index)->d;
}

idx_t faiss_Index_ntotal(const FaissIndex *index)
{
    return cpp(index)->ntotal;
}

FaissMetricType faiss_Index_metric_type(const FaissIndex *index)
{
    return static_cast<FaissMetricType>(cpp(index)->metric_type);
}

int faiss_Index_train(FaissIndex *index, idx_t n, const float *x)
{
    return guarded([&] { cpp(index)->train(n, x); });
}

int faiss_Index_add(FaissIndex *index, idx_t n, const float *x)
{
    return guarded([&] { cpp(index)->add(n, x); });
}

int faiss_Index_reset(FaissIndex *index)
{
    return guarded([&] { cpp(index)->reset(); });
}

int faiss_Index_assign(FaissIndex *index, idx_t n, const float *x, idx_t *labels, idx_t k)
{
    return guarded([&] { cpp(index)->assign(n, x, labels, k); });
}

int faiss_Index_search(
    const FaissIndex *index, idx_t n, const float *x, idx_t k, float *distances, idx_t *labels)
{
    return guarded([&] { cpp(index)->search(n, x, k, distances, labels); });
}

int faiss_Index_search_with_params(const FaissIndex *index, idx_t n, const float *x, idx_t k,
    const FaissSearchParameters *params, float *distances, idx_t *labels)
{
    auto cpp_params = reinterpret_cast<const faiss::SearchParameters *>(params);
    return guarded([&] { cpp(index)->search(n, x, k, distances, labels, cpp_params); });
}

int faiss_Index_reconstruct(const FaissIndex *index, idx_t key, float *recons)
{
    return guarded([&] { cpp(index)->reconstruct(key, recons); });
}

/* ---- kinds of indexes ---------------------------------------------------------------------- */

int faiss_index_factory(
    FaissIndex **p_index, int d, const char *description, FaissMetricType metric)
{
    auto cpp_metric = static_cast<faiss::MetricType>(metric);
    return guarded([&] { *p_index = c(faiss::index_factory(d, description, cpp_metric)); });
}

int faiss_IndexFlat_new_with(FaissIndexFlat **p_index, idx_t d, FaissMetricType metric)
{
    auto cpp_metric = static_cast<faiss::MetricType>(metric);
    return guarded([&] { *p_index = c(new faiss::IndexFlat(d, cpp_metric)); });
}

FaissIndexIVF *faiss_IndexIVF_cast(FaissIndex *index)
{
    return c(dynamic_cast<faiss::IndexIVF *>(cpp(index)));
}

size_t faiss_IndexIVF_nlist(const FaissIndexIVF *index)
{
    return static_cast<const faiss::IndexIVF *>(cpp(index))->nlist;
}

FaissIndex *faiss_IndexIVF_quantizer(const FaissIndexIVF *index)
{
    return c(static_cast<const faiss::IndexIVF *>(cpp(index))->quantizer);
}

size_t faiss_IndexIVF_get_list_size(const FaissIndexIVF *index, size_t list_no)
{
    return static_cast<const faiss::IndexIVF *>(cpp(index))->get_list_size(list_no);
}

void faiss_IndexIVF_invlists_get_ids(const FaissIndexIVF *index, size_t list_no, idx_t *invlist)
{
    const auto *ivf = static_cast<const faiss::IndexIVF *>(cpp(index));
    faiss::InvertedLists::ScopedIds ids(ivf->invlists, list_no);
    std::copy(ids.get(), ids.get() + ivf->get_list_size(list_no), invlist);
}

int faiss_ParameterSpace_new(FaissParameterSpace **space)
{
    return guarded(
        [&] { *space = reinterpret_cast<FaissParameterSpace *>(new faiss::ParameterSpace()); });
}

void faiss_ParameterSpace_free(FaissParameterSpace *space)
{
    delete reinterpret_cast<faiss::ParameterSpace *>(space);
}

int faiss_ParameterSpace_set_index_parameter(
    const FaissParameterSpace *space, FaissIndex *index, const char *name, double value)
{
    auto cpp_space = reinterpret_cast<const faiss::ParameterSpace *>(space);
    return guarded([&] { cpp_space->set_index_parameter(cpp(index), name, value); });
}

/* ---- what a search may see ----------------------------------------------------------------- */

int faiss_IDSelectorBitmap_new(FaissIDSelectorBitmap **p_sel, size_t n, const uint8_t *bitmap)
{
    return guarded([&] {
        faiss::IDSelector *selector = new faiss::IDSelectorBitmap(n, bitmap);
        *p_sel = reinterpret_cast<FaissIDSelectorBitmap *>(selector);
    });
}

void faiss_IDSelector_free(FaissIDSelector *selector)
{
    delete cpp(selector);
}

int faiss_SearchParameters_new(FaissSearchParameters **p_sp, FaissIDSelector *sel)
{
    return guarded([&] {
        auto params = new faiss::SearchParameters();
        params->sel = cpp(sel);
        *p_sp = reinterpret_cast<FaissSearchParameters *>(params);
    });
}

int faiss_SearchParametersIVF_new_with(
    FaissSearchParametersIVF **p_sp, FaissIDSelector *sel, size_t nprobe, size_t max_codes)
{
    return guarded([&] {
        auto params = new faiss::SearchParametersIVF();
        params->sel = cpp(sel);
        params->nprobe = nprobe;
        params->max_codes = max_codes;
        faiss::SearchParameters *base = params;
        *p_sp = reinterpret_cast<FaissSearchParametersIVF *>(base);
    });
}

void faiss_SearchParameters_free(FaissSearchParameters *params)
{
    delete reinterpret_cast<faiss::SearchParameters *>(params);
}

/* ---- files --------------------------------------------------------------------------------- */

int faiss_write_index(const FaissIndex *index, FILE *f)
{
    return guarded([&] { faiss::write_index(cpp(index), f); });
}

int faiss_read_index(FILE *f, int io_flags, FaissIndex **p_out)
{
    return guarded([&] { *p_out = c(faiss::read_index(f, io_flags)); });
}

} // extern "C"
