"""The paper's published figures, to print beside ours.

Computed from the runs that its authors published (Li et al., ICML 2025, arXiv 2505.11370): seeds averaged, then over
configurations. Their train accuracies are running averages of the last epoch, in training mode; ours are of the whole set in
evaluation mode, so that more of our runs count as fitted.
"""

import functools
import math
from collections.abc import Mapping, Sequence

import pandas as pd

from regioncount.analysis.observations import HYPERPARAMETERS

# Of region count, or in the last rows of the measure named there, and generalization gap: over all configurations and over
# those that fit (train accuracy of at least 0.99); test accuracies are the lowest and the highest of a configuration.
PUBLISHED = """
experiment                       network                configurations fitted pearson pearson_fitted spearman kendall test_accuracy_low test_accuracy_high
cifar10                          resnet18                           27     27  0.9844         0.9844    0.956  0.8519   0.6383     0.843
cifar10                          resnet34                           27     27  0.9751         0.9751   0.9753  0.8886    0.613    0.8453
cifar10                          vgg19                              27     27  0.9377         0.9377   0.8109  0.6448   0.6573    0.8693
cifar10                          mobilenet                          27     27   0.949          0.949   0.9884  0.9373   0.4367    0.7658
cifar10                          senet18                            27     27  0.9814         0.9814    0.942  0.8257   0.6455    0.8615
cifar10                          shufflenetv2                       27     27  0.9526         0.9526   0.9884  0.9202   0.4034    0.8113
cifar10                          efficientnet_b0                    27     27  0.9801         0.9801   0.9853  0.9202   0.3726    0.7996
cifar10                          regnetx_200mf                      27     27  0.9797         0.9797   0.9597  0.8575   0.5206    0.8338
cifar10                          simple_dla                         27     27  0.9832         0.9832   0.9683  0.8746   0.5487    0.8467
cifar100                         resnet18                           27     21  0.0688         0.9481   0.3156  0.3333   0.5762     0.727
cifar100                         resnet34                           27     24  0.9642         0.9483   0.8551  0.6904   0.5472    0.7272
cifar100                         vgg19                              27     27  0.6142         0.6142   0.6585  0.4807   0.5392    0.6949
cifar100                         mobilenet                          27     18 -0.6788         0.9643   -0.246 -0.0655    0.215    0.6072
cifar100                         senet18                            27     18  -0.369         0.8634  -0.1346  0.0456   0.4293    0.7329
cifar100                         shufflenetv2                       27     15 -0.6828         0.9418  -0.3089 -0.1567    0.158    0.6762
cifar100                         efficientnet_b0                    27     18  0.3179         0.9571   0.4461  0.3571   0.3712    0.6445
cifar100                         regnetx_200mf                      27     18 -0.1766         0.9863   0.2784  0.2821   0.3491    0.7211
cifar100                         simple_dla                         27     21   0.088         0.9232    0.312   0.291   0.4632    0.7245
plane                            resnet18                           27     27  0.9887         0.9887   0.9725  0.8689    0.635    0.8422
plane                            resnet34                           27     27  0.9761         0.9761   0.9341  0.7835   0.6184    0.8472
plane                            vgg19                              27     27  0.9354         0.9354   0.7906  0.6182   0.6596    0.8669
plane                            mobilenet                          27     27  0.9449         0.9449   0.9835  0.9202   0.4396    0.7663
plane                            senet18                            27     27  0.9817         0.9817   0.9718  0.8927   0.6454    0.8627
plane                            shufflenetv2                       23     23  0.9386         0.9386   0.9891  0.9289   0.3877    0.8148
plane                            efficientnet_b0                    27     27  0.9718         0.9718   0.9921   0.943   0.3721    0.7996
plane                            regnetx_200mf                      27     27  0.9763         0.9763   0.9676  0.8974   0.5211    0.8338
plane                            simple_dla                         27     27  0.9826         0.9826   0.9641   0.873   0.5508    0.8478
adam                             resnet18                           27     27  0.9189         0.9189   0.9183  0.7554   0.7542    0.8668
adam                             resnet34                           27     27  0.9159         0.9159   0.8965    0.74   0.7658    0.8739
adam                             vgg19                              27     24  0.3568         0.9401   0.5545  0.5171   0.5775    0.8863
adam                             mobilenet                          27     27  0.9538         0.9538   0.8443  0.7037   0.6243    0.8446
adam                             senet18                            27     18 -0.1768         0.9253   0.1408   0.155   0.2108    0.8695
adam                             shufflenetv2                       21     20  0.7013         0.7354   0.4478  0.3405   0.6854    0.8535
adam                             efficientnet_b0                    27     26  0.3045         0.4536   0.3462  0.2397    0.695    0.8544
adam                             regnetx_200mf                      27     26  0.9244         0.9425   0.9377  0.8166   0.7976    0.8802
adam                             simple_dla                         27     27  0.8915         0.8915   0.9025  0.7361    0.726    0.8636
adagrad                          resnet18                           27     27  0.9568         0.9568   0.9698  0.8771   0.7102    0.8367
adagrad                          resnet34                           27     27  0.9116         0.9116   0.9508    0.82     0.73    0.8465
adagrad                          vgg19                              27     26  0.8735         0.8742   0.7816  0.6277   0.7287    0.8577
adagrad                          mobilenet                          27     24  0.9889         0.9866   0.9719   0.886   0.3022    0.7085
adagrad                          senet18                            27     22  0.8643         0.8801   0.9606  0.8486   0.5929    0.8145
adagrad                          shufflenetv2                       27     21  0.9884         0.9791   0.9902  0.9316    0.338    0.7324
adagrad                          efficientnet_b0                    27     27  0.9861         0.9861   0.8857  0.7304   0.3742    0.7879
adagrad                          regnetx_200mf                      27     27  0.9953         0.9953   0.9505  0.8519   0.4893    0.8014
adagrad                          simple_dla                         27     27  0.8799         0.8799   0.8777  0.7361   0.6426     0.803
random_direction                 resnet18                           27     27  0.9783         0.9783   0.8728  0.7247   0.6398    0.8424
random_direction                 resnet34                           23     23  0.9406         0.9406   0.8291  0.6838   0.6118    0.8444
random_direction                 vgg19                              27     27  0.7655         0.7655   0.4426  0.3333   0.6569    0.8688
random_direction                 mobilenet                          27     27  0.8801         0.8801   0.8524   0.679   0.4414    0.7708
random_direction                 senet18                            25     25  0.9876         0.9876   0.9602  0.8715   0.6478     0.861
random_direction                 shufflenetv2                       27     27  0.9156         0.9156   0.9396  0.8405    0.402     0.813
random_direction                 efficientnet_b0                    26     26  0.9244         0.9244   0.8909  0.7747   0.3787    0.8172
random_direction                 regnetx_200mf                      25     25  0.9218         0.9218   0.7955  0.6444   0.5175    0.8481
random_direction                 simple_dla                         11     11  0.9557         0.9557   0.5636  0.4182   0.5364    0.8488
train_pairs                      resnet18                           27     27  0.9764         0.9764   0.9536  0.8257   0.6362    0.8409
train_pairs                      resnet34                           24     24  0.9573         0.9573   0.9343  0.8218   0.6184    0.8477
train_pairs                      vgg19                              27     27  0.8928         0.8928   0.6891  0.5364   0.6564    0.8662
train_pairs                      mobilenet                          27     27  0.9366         0.9366   0.9829  0.9031   0.4412    0.7726
train_pairs                      senet18                            26     26  0.9702         0.9702   0.9578  0.8629   0.6449    0.8613
train_pairs                      shufflenetv2                       27     27  0.9431         0.9431   0.9939  0.9544   0.4043    0.8123
train_pairs                      efficientnet_b0                    27     27  0.9795         0.9795   0.9664  0.8746   0.3698    0.8002
train_pairs                      regnetx_200mf                      27     27  0.9659         0.9659    0.975  0.8803   0.5204    0.8413
train_pairs                      simple_dla                         26     26  0.9809         0.9809   0.8601  0.7302   0.5383    0.8468
short_segment                    resnet18                           27     24   0.936         0.9395   0.8726  0.7098    0.621    0.8397
svhn                             resnet18                           27      0 -0.2047              -  -0.2816 -0.1942   0.8931    0.9489
simplex_2d                       resnet18                           27     27  0.9614         0.9614   0.9333  0.7897    0.634    0.8398
simplex_3d                       resnet18                           27     27  0.9693         0.9693   0.9254  0.7932    0.634    0.8398
simplex_4d                       resnet18                           27     27  0.9716         0.9716   0.9269  0.7989    0.634    0.8398
simplex_5d                       resnet18                           27     27  0.9632         0.9632    0.898  0.7607    0.634    0.8398
short_segment                    resnet34                           27     19  0.9452         0.9589   0.7963  0.6275   0.6208     0.849
svhn                             resnet34                           26      0 -0.4892              -  -0.4565  -0.362   0.9028    0.9503
simplex_2d                       resnet34                           27     27  0.9813         0.9813    0.887  0.7708    0.617     0.852
simplex_3d                       resnet34                           27     27   0.982          0.982   0.9073  0.7532    0.617     0.852
simplex_4d                       resnet34                           27     27  0.9842         0.9842   0.9103  0.7607    0.617     0.852
simplex_5d                       resnet34                           27     27  0.9877         0.9877   0.9249  0.7835    0.617     0.852
short_segment                    vgg19                              27     18  0.2989          0.923   0.1106   0.046   0.3291    0.8303
svhn                             vgg19                              27      0  0.2293              -   0.3264   0.202   0.1937    0.9436
simplex_2d                       vgg19                              27     27  0.8768         0.8768   0.7061  0.5505   0.6593    0.8679
simplex_3d                       vgg19                              27     27  0.8647         0.8647   0.6894  0.5592   0.6593    0.8679
simplex_4d                       vgg19                              27     27  0.8178         0.8178   0.6775  0.5307   0.6593    0.8679
simplex_5d                       vgg19                              27     27  0.8152         0.8152   0.6747  0.5364   0.6593    0.8679
short_segment                    mobilenet                          27      0 -0.8302              -  -0.4134 -0.1514   0.3719    0.7557
svhn                             mobilenet                          27      0 -0.7672              -  -0.8913 -0.7286   0.3326    0.9365
simplex_2d                       mobilenet                          27     27  0.9866         0.9866   0.9828  0.8959    0.435    0.7831
simplex_3d                       mobilenet                          27     27   0.987          0.987   0.9866  0.9202    0.435    0.7831
simplex_4d                       mobilenet                          27     27  0.9923         0.9923   0.9872  0.9202    0.435    0.7831
simplex_5d                       mobilenet                          27     27  0.9938         0.9938   0.9927  0.9487    0.435    0.7831
short_segment                    senet18                            27     21  0.2892         0.8869   0.2471  0.1705   0.5697    0.8384
svhn                             senet18                            27      0  0.3822              -   0.4503  0.3257   0.5967    0.9554
simplex_2d                       senet18                            27     27  0.9711         0.9711   0.9047  0.7571   0.6395    0.8611
simplex_3d                       senet18                            27     27  0.9699         0.9699   0.8928  0.7457   0.6395    0.8611
simplex_4d                       senet18                            27     27  0.9717         0.9717   0.9002  0.7571   0.6395    0.8611
simplex_5d                       senet18                            20     20  0.9259         0.9259   0.7078  0.5435   0.6396    0.8611
short_segment                    shufflenetv2                       27      0 -0.8579              -  -0.5393 -0.3949   0.3542    0.7813
short_segment                    efficientnet_b0                    27      9  0.9184         0.8929   0.8917   0.704   0.4015    0.7834
svhn                             efficientnet_b0                    27      0 -0.7527              -  -0.3288 -0.2271   0.6383    0.9398
simplex_2d                       efficientnet_b0                    27     27  0.9928         0.9928   0.9811  0.9125   0.3694    0.8074
simplex_3d                       efficientnet_b0                    27     27  0.9937         0.9937   0.9647  0.8787   0.3694    0.8074
simplex_4d                       efficientnet_b0                    27     27  0.9944         0.9944    0.975   0.886   0.3694    0.8074
simplex_5d                       efficientnet_b0                    27     27  0.9946         0.9946   0.9646   0.886   0.3694    0.8074
short_segment                    regnetx_200mf                      27      3 -0.4063              -  -0.2583 -0.1484   0.5119    0.7948
svhn                             regnetx_200mf                      27      0  0.5807              -   0.2959  0.1971   0.1959     0.942
simplex_2d                       regnetx_200mf                      27     27  0.9882         0.9882   0.9542  0.8291   0.5255    0.8424
simplex_3d                       regnetx_200mf                      27     27  0.9919         0.9919   0.9522  0.8388   0.5255    0.8424
simplex_4d                       regnetx_200mf                      27     27   0.995          0.995    0.964  0.8575   0.5255    0.8424
simplex_5d                       regnetx_200mf                      27     27  0.9944         0.9944   0.9493  0.8177   0.5255    0.8424
short_segment                    simple_dla                         27     21  0.8113         0.9035   0.8564  0.6504   0.4996    0.8345
svhn                             simple_dla                         27      0 -0.4606              -  -0.3152 -0.2489   0.8636    0.9561
simplex_2d                       simple_dla                         27     27  0.9918         0.9918    0.954  0.8396   0.5486    0.8438
simplex_3d                       simple_dla                         27     27  0.9945         0.9945   0.9237  0.7892   0.5486    0.8438
simplex_4d                       simple_dla                         27     27  0.9958         0.9958   0.9426  0.8348   0.5486    0.8438
simplex_5d                       simple_dla                         27     27  0.9963         0.9963   0.9206  0.7949   0.5486    0.8438
mixup                            resnet18                           27      0  0.3968              -   0.3077  0.2934   0.7523    0.8595
crop_flip                        resnet18                           27     24  0.9537         0.9489   0.9194   0.755   0.8575     0.931
weight_decay                     resnet18                           40     33  0.5292         0.7723   0.5652  0.4399   0.5568    0.8452
early_stop                       resnet18                           45      9 -0.1941         0.5507  -0.1759 -0.1001   0.5693    0.8176
vary_learning_rate               resnet18                            5      5  0.9626         0.9626      1.0     1.0   0.7162    0.8803
vary_batch_size                  resnet18                            6      6  0.9606         0.9606   0.8286  0.7333   0.7682    0.8885
vary_learning_rate               senet18                             5      5  0.9543         0.9543      1.0     1.0   0.6991    0.8886
vary_batch_size                  senet18                             6      6  0.9852         0.9852      1.0     1.0   0.7491    0.8926
vary_learning_rate               efficientnet_b0                     5      5  0.9846         0.9846      1.0     1.0   0.5182    0.8489
vary_batch_size                  efficientnet_b0                     6      6  0.9745         0.9745   0.8286  0.7333   0.6077    0.8559
vision_transformer               vision_transformer                 36     15  0.6244         0.8308        -       -   0.6252    0.8333
classical_classifiers            decision_tree                      58      0  0.9620              -        -       -   0.2335    0.3057
classical_classifiers            nearest_neighbours                 64     32 -0.5283        -0.4937        -       -   0.3302    0.3952
classical_classifiers            logistic_regression                16      0  0.6962              -        -       -   0.3983    0.4012
classical_classifiers            random_forest                      60      2  0.9806              -        -       -    0.288    0.4704
classical_classifiers            support_vector_machine             16      2 -0.6011              -        -       -   0.2215    0.5691
parameter_norm                   resnet18                           27     27  0.8314         0.8314        -       -   0.6383     0.843
output_margin                    resnet18                           27     27  0.6315         0.6315        -       -   0.6383     0.843
margin_over_norm                 resnet18                           27     27  0.2087         0.2087        -       -   0.6383     0.843
frobenius_distance               resnet18                           27     24  0.4932         0.5852        -       -    0.621    0.8397
inverse_margin                   resnet18                           27     24 -0.6760        -0.7468        -       -    0.621    0.8397
log_product_spectral             resnet18                           27     24  0.7755         0.7759        -       -    0.621    0.8397
log_product_spectral_over_margin resnet18                           27     24  0.3269         0.3403        -       -    0.621    0.8397
pacbayes_flatness                resnet18                           27     24 -0.3141        -0.3004        -       -    0.621    0.8397
pacbayes_origin                  resnet18                           27     24 -0.3141        -0.3004        -       -    0.621    0.8397
pacbayes_initialization          resnet18                           27     24 -0.3599        -0.3522        -       -    0.621    0.8397
pacbayes_magnitude_origin        resnet18                           27     24  0.7827         0.7951        -       -    0.621    0.8397
pacbayes_magnitude_initialization resnet18                           27     24  0.7929         0.8126        -       -    0.621    0.8397
"""  # noqa: E501


def published(experiment: str, network: str) -> dict[str, float] | None:
    """The published figures of an experiment's network, or None: configurations, fitted, pearson, pearson_fitted, spearman,
    kendall, test_accuracy_low and test_accuracy_high, a configuration's as fractions. What is undefined is NaN.
    """
    return _table().get((experiment, network))


def compare(
    correlations: pd.DataFrame,
    runs: pd.DataFrame,
    experiments: Mapping[str, str],
    group_by: Sequence[str] = HYPERPARAMETERS,
) -> pd.DataFrame:
    """Correlations of measures and generalization gap beside the published ones, a row a network and measure.

    correlations, runs: as a sweep's correlations.csv and runs.csv have them. experiments: for the name of a subspace or of
    another measure, that in `PUBLISHED`; every region count has a row, another measure only if it is named there.
    group_by: the columns of runs that make a configuration.

    Returns what tells the groups of correlations apart (dataset, model, ...), measure, pearson, pearson_low, pearson_high,
    configurations, pearson_fitted, configurations_fitted, test_accuracy_low and test_accuracy_high (over configurations, as
    fractions), and beside them published_experiment, published_pearson, published_configurations, published_pearson_fitted,
    published_fitted, published_test_accuracy_low, published_test_accuracy_high: undefined (NaN) where none were published.
    """
    ours = ["pearson", "pearson_low", "pearson_high", "configurations", "pearson_fitted", "configurations_fitted"]
    theirs = ["pearson", "configurations", "pearson_fitted", "fitted", "test_accuracy_low", "test_accuracy_high"]
    rows = []
    for _, row in correlations.iterrows():
        name = row["measure"].removeprefix("region_count_")
        if row["target"] != "generalization_gap" or (name == row["measure"] and name not in experiments):
            continue
        group = row[: row.index.get_loc("measure")].to_dict()
        alike = runs[(runs[list(group)] == list(group.values())).all(axis=1)]
        accuracies = alike.groupby(list(group_by), dropna=False)["test_accuracy"].mean()
        found = published(experiments.get(name, ""), row["model"]) or dict.fromkeys(theirs, math.nan)
        rows.append(
            {
                **group,
                "measure": row["measure"],
                **row[ours],
                "test_accuracy_low": accuracies.min(),
                "test_accuracy_high": accuracies.max(),
            }
            | {"published_experiment": experiments.get(name)}
            | {f"published_{name}": found[name] for name in theirs}
        )
    return pd.DataFrame(rows)


@functools.cache
def _table() -> dict[tuple[str, str], dict[str, float]]:
    header, *lines = PUBLISHED.strip().splitlines()
    columns = header.split()[2:]
    table = {}
    for line in lines:
        experiment, network, *numbers = line.split()
        values = (math.nan if number == "-" else float(number) for number in numbers)
        table[experiment, network] = dict(zip(columns, values, strict=True))
    return table
