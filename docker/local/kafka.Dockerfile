# Apache Kafka of the jars in requirements/kafka-jars.txt, on the Java of the pipeline's image.
ARG PIPELINE_IMAGE
FROM ${PIPELINE_IMAGE}
COPY kafka-jars /opt/kafka/libs
ENV PATH=/opt/java/bin:$PATH
